"""Quantizing in order: each unit is calibrated on what the quantized units before it compute.

Outputs are still compared with those of the float network, so a unit makes up for errors that it
did not make. Sources: EasyQuant (2020), section 3.3; RepQ-ViT (ICCV 2023), whose layers are
calibrated with quantizers active in front of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pipeline.errors import UserError
from pipeline.quant import walk
from pipeline.quant.bias_correction import corrected_biases
from pipeline.quant.calibrate import (
    Progress,
    check_enough,
    chosen_quantizers,
    empty_statistics,
)
from pipeline.quant.constant_operands import restored_operands
from pipeline.quant.finite import check_finite
from pipeline.quant.images import as_input
from pipeline.quant.plan import Plan
from pipeline.quant.quantization import Quantization
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.recipe import Recipe
from pipeline.quant.rounding import rounded_weight
from pipeline.quant.search.engine import Pair
from pipeline.quant.search.run import is_searched, search_products
from pipeline.quant.sites import Sampling, Site, SiteSampler, seen_by
from pipeline.quant.student import Student
from pipeline.quant.units import Unit, split_units
from pipeline.quant.weights import QuantizedWeight

Values = dict[fx.Node, Tensor]
"""Tensors of one photo."""


def quantize_in_order(
    graph: fx.GraphModule,
    photos: Sequence[np.ndarray[Any, Any]],
    recipe: Recipe,
    plan: Plan,
    sampling: Sampling,
    progress: Progress | None = None,
) -> Quantization:
    """Find quantizers and weights unit by unit; every unit runs three times.

    Args:
        graph: canonical float graph.
        photos: uint8 `[H, W, 3]`.
        recipe: formats, observers and search.
        plan: the graph's plan under the recipe.
        sampling: how much of every product the search looks at.
        progress: called after every unit, with a number of photos that stands for it.

    Raises:
        UserError: too few photos, a photo of the wrong shape, or a value that is not finite; or
            errors are to be weighed, which only makes sense on the float network.
    """
    check_enough(len(photos), recipe)
    if recipe.search is not None and recipe.search.importance != "none":
        raise UserError(
            f"Recipe {recipe.name} weighs errors by {recipe.search.importance} and goes through "
            "the network in order, which do not go together; take one of both."
        )
    (image,) = (n for n in graph.graph.nodes if n.op == "placeholder")
    exact: list[Values] = [{image: as_input(photo, graph)} for photo in photos]
    seen = [dict(values) for values in exact]
    order = _InOrder(graph, recipe, plan, sampling)
    units = split_units(graph.graph)
    with torch.no_grad():
        for done, unit in enumerate(units, start=1):
            exact, seen = order.quantize(unit, exact, seen)
            if progress is not None:
                progress(done * len(photos) // len(units), len(photos))
    return Quantization(order.settled, order.weights, order.biases, images=len(photos))


class _InOrder:
    """What is known so far.

    Attributes:
        settled: key -> quantizer, for what units so far read or produce.
        open: likewise, for outputs that the products of a later unit will search.
        weights: product -> codes.
        biases: product -> corrected bias.
    """

    def __init__(
        self, graph: fx.GraphModule, recipe: Recipe, plan: Plan, sampling: Sampling
    ) -> None:
        self.graph, self.recipe, self.plan, self.sampling = graph, recipe, plan, sampling
        self.settled: dict[str, Quantizer] = {}
        self.open: dict[str, Quantizer] = {}
        self.weights: dict[str, QuantizedWeight] = {}
        self.biases: dict[str, Tensor] = {}
        self.operands = restored_operands(graph)

    def quantize(
        self, unit: Unit, exact: list[Values], seen: list[Values]
    ) -> tuple[list[Values], list[Values]]:
        """Quantize a unit; returns its outputs in the float and in the quantized network."""
        wanted, outputs = self._teach(unit, exact)
        found, start = self._observe(unit, seen)
        sites = seen_by(found, wanted)
        rows: Mapping[str, Pair] = {}
        kept = self._left_open(unit)
        if self.recipe.search is not None:
            choice = search_products(
                self.graph.graph,
                self.plan,
                self.recipe,
                self.recipe.search,
                sites,
                {**self.settled, **self.open, **start},
                importance={},
                settled=frozenset(self.settled),
            )
            start |= self.open | choice.activations
            rows = choice.rows
        read = {node: self.open.get(walk.source(node).name) for node in unit.inputs}
        self.open = {key: start.pop(key) for key in kept}
        self.settled |= start
        self._encode(unit, rows, sites)
        run = self._student(unit)
        for values in seen:
            for node, was_open in read.items():
                if was_open is not None:
                    values[node] = self.settled[walk.source(node).name].fake(values[node])
        return outputs, [run.unit(unit, values) for values in seen]

    def _teach(self, unit: Unit, exact: list[Values]) -> tuple[dict[str, Site], list[Values]]:
        teacher = Student(self.graph, self.plan, {}, {}, {})
        sampler = SiteSampler(self.graph, self.sampling)
        outputs = []
        for values in exact:
            env = teacher.run(unit.nodes, values, partial(_sample, sampler))
            for node in unit.nodes:
                if node.op == "call_function" and node.target not in walk.VIEWS:
                    check_finite(env[node], node)
            sampler.end_photo()
            outputs.append({node: env[node] for node in unit.outputs})
        return sampler.sites(), outputs

    def _observe(
        self, unit: Unit, seen: list[Values]
    ) -> tuple[dict[str, Site], dict[str, Quantizer]]:
        """Samples of the unit's products, and quantizers by observers for what it stores."""
        mine = self._part(unit)
        statistics = empty_statistics(mine)
        inside = {node.name for node in unit.nodes}
        sampler = SiteSampler(self.graph, self.sampling)
        student = Student(self.graph, self.plan, self._fakes(), {}, {})

        def observe(product: fx.Node, read: tuple[Tensor, ...], result: Tensor) -> None:
            sampler.observe(product, read)
            for index, value in enumerate(read):
                copy = mine.copies.get((product.name, index))
                if copy is not None and copy.source not in inside:
                    statistics[copy.source].update(value)

        for values in seen:
            env = student.run(unit.nodes, values, observe)
            for node in unit.nodes:
                if node.name in statistics:
                    statistics[node.name].update(env[node])
            sampler.end_photo()
        return sampler.sites(), chosen_quantizers(mine, statistics, self.recipe)

    def _part(self, unit: Unit) -> Plan:
        """The plan of what the unit stores, and of copies that nobody read before."""
        inside = {node.name for node in unit.nodes}
        return replace(
            self.plan,
            formats={name: form for name, form in self.plan.formats.items() if name in inside},
            copies={
                place: copy
                for place, copy in self.plan.copies.items()
                if place[0] in inside and copy.key not in self.settled
            },
        )

    def _left_open(self, unit: Unit) -> list[str]:
        """Keys of outputs that only later units read, the first of which searches them."""
        if self.recipe.search is None:
            return []
        sources = {walk.source(node) for node in unit.outputs if node in unit.nodes}
        return [n.name for n in sources if n in unit.nodes and self._is_open(n, unit)]

    def _is_open(self, node: fx.Node, unit: Unit) -> bool:
        form = self.plan.formats.get(node.name)
        if form is None or not is_searched(form) or node.name in self.plan.heads:
            return False
        readers = walk.consumers(node)
        return not any(r in unit.nodes for r in readers) and any(
            r.target in walk.GEMMS for r in readers
        )

    def _encode(self, unit: Unit, rows: Mapping[str, Pair], sites: Mapping[str, Site]) -> None:
        for node in unit.products:
            if node.target in walk.WEIGHTED:
                self.weights[node.name] = rounded_weight(
                    self.graph,
                    node,
                    self.plan,
                    self.recipe,
                    self.settled,
                    rows.get(node.name),
                    sites.get(node.name),
                )
        if self.recipe.bias_correction:
            self.biases |= corrected_biases(
                self.graph, self.plan, self.settled, self.weights, sites
            )

    def _student(self, unit: Unit) -> Student:
        weights = self.operands | {
            node.name: self.weights[node.name].dequantized()
            for node in unit.products
            if node.name in self.weights
        }
        return Student(self.graph, self.plan, self._fakes(), weights, self.biases)

    def _fakes(self) -> dict[str, Any]:
        return {key: quantizer.fake for key, quantizer in self.settled.items()}


def _sample(
    sampler: SiteSampler, product: fx.Node, read: tuple[Tensor, ...], result: Tensor
) -> None:
    sampler.observe(product, read)
