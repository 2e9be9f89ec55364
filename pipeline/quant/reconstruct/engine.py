"""The reconstruction engine: units in order, each trained to repeat what the float network does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

from pipeline.quant import walk
from pipeline.quant.images import as_input
from pipeline.quant.initial import weight_and_bias, weight_format
from pipeline.quant.plan import Plan
from pipeline.quant.quantization import Quantization
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.quantizers.uniform import UniformQuantizer
from pipeline.quant.recipe import Recipe
from pipeline.quant.reconstruct.settings import Reconstruct
from pipeline.quant.reconstruct.trainable import TrainableFake, TrainableRounding
from pipeline.quant.student import Student
from pipeline.quant.units import Unit, merge_blocks, split_units
from pipeline.quant.weights import QuantizedWeight

Values = dict[fx.Node, Tensor]
"""Tensors with a leading axis of photos."""

_CHUNK = 8
"""Photos that run at a time where nothing is trained."""


@dataclass(frozen=True)
class UnitResult:
    """What training a unit gives: see `Quantization`."""

    activations: Mapping[str, Quantizer]
    weights: Mapping[str, QuantizedWeight]


def reconstruct(
    graph: fx.GraphModule,
    plan: Plan,
    recipe: Recipe,
    settings: Reconstruct,
    photos: Sequence[np.ndarray[Any, Any]],
    found: Quantization,
    remembered: Callable[[Unit], UnitResult | None] = lambda unit: None,
    remember: Callable[[Unit, UnitResult], None] = lambda unit, result: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Quantization:
    """Train rounding and scales of all units.

    Args:
        graph: canonical graph.
        plan: its plan.
        recipe: formats of weights.
        settings: how to train.
        photos: uint8 `[H, W, 3]`.
        found: the quantization to begin with.
        remembered: the result of a unit that was trained before, if there is one.
        remember: takes the result of a unit.
        progress: called with the number of steps done and their total.
    """
    return _Engine(graph, plan, recipe, settings, found).run(photos, remembered, remember, progress)


class _Engine:
    def __init__(
        self,
        graph: fx.GraphModule,
        plan: Plan,
        recipe: Recipe,
        settings: Reconstruct,
        found: Quantization,
    ) -> None:
        self.graph, self.plan, self.recipe, self.settings = graph, plan, recipe, settings
        self.activations = dict(found.activations)
        self.weights = dict(found.weights)
        self.found = found
        self.units = merge_blocks(split_units(graph.graph))

    def run(
        self,
        photos: Sequence[np.ndarray[Any, Any]],
        remembered: Callable[[Unit], UnitResult | None],
        remember: Callable[[Unit, UnitResult], None],
        progress: Callable[[int, int], None],
    ) -> Quantization:
        (image,) = (n for n in self.graph.graph.nodes if n.op == "placeholder")
        inputs = torch.stack([as_input(p, self.graph) for p in photos[: self.settings.images]])
        wanted: Values = {image: inputs}
        mine: Values = {image: inputs}
        total = len(self.units) * self.settings.iterations
        for index, unit in enumerate(self.units):
            targets = _in_chunks(self._teacher(unit), wanted)
            result = remembered(unit)
            if result is None:
                before = index * self.settings.iterations
                tell = partial(_advance, progress, before, total)
                result = self._train(unit, mine, wanted, targets, tell)
                remember(unit, result)
            self.activations |= result.activations
            self.weights |= result.weights
            mine = _in_chunks(self._student(unit), mine)
            wanted = targets
            progress((index + 1) * self.settings.iterations, total)
        return Quantization(
            self.activations,
            self.weights,
            self.found.biases,
            self.found.bits,
            self.found.equalizations,
            self.found.images,
        )

    def _teacher(self, unit: Unit) -> Callable[[Values], Values]:
        student = Student(self.graph, self.plan, {}, {}, {})
        return _over_photos(student, unit)

    def _student(self, unit: Unit) -> Callable[[Values], Values]:
        weights = {
            n.name: self.weights[n.name].dequantized()
            for n in unit.products
            if n.name in self.weights
        }
        fakes = {key: quantizer.fake for key, quantizer in self.activations.items()}
        student = Student(self.graph, self.plan, fakes, weights, self.found.biases)
        return _over_photos(student, unit)

    def _train(
        self,
        unit: Unit,
        mine: Values,
        exact: Values,
        targets: Values,
        progress: Callable[[int], None],
    ) -> UnitResult:
        settings = self.settings
        fakes = {
            key: TrainableFake(self.activations[key], settings.drop)
            for key in self._keys(unit)
            if self._is_trained(self.activations[key])
        }
        rounding = {n.name: self._rounding(n) for n in unit.products if n.name in self.weights}
        weights: dict[str, Tensor] = {}
        # Others only pass gradients on: rounding itself has none.
        fixed = {k: TrainableFake(q, 0.0) for k, q in self.activations.items() if k not in fakes}
        student = Student(self.graph, self.plan, {**fixed, **fakes}, weights, self.found.biases)
        run = _over_photos(student, unit)
        slow = [fake.log_scale for fake in fakes.values()]
        optimizers = [
            torch.optim.Adam([r.alpha for r in rounding.values()], settings.rounding_rate)
        ]
        schedules = []
        if slow and settings.scale_rate:
            optimizers.append(torch.optim.Adam(slow, settings.scale_rate))
            schedules.append(
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizers[1], settings.iterations)
            )
        random = torch.Generator().manual_seed(settings.seed)
        torch.manual_seed(settings.seed)
        count = len(next(iter(mine.values())))
        source = mine if settings.inputs == "quantized" else exact
        first: float | None = None
        for step in range(settings.iterations):
            picked = torch.randperm(count, generator=random)[: settings.batch]
            batch = {
                node: _mixed(source[node][picked], exact[node][picked], settings.drop, random)
                for node in unit.inputs
            }
            if not unit.inputs:
                batch = {node: value[picked] for node, value in mine.items()}
            weights.update({name: r() for name, r in rounding.items()})
            outputs = run(batch)
            loss = sum(
                (_loss(outputs[n], targets[n][picked], _is_logits(n)) for n in unit.outputs),
                torch.zeros(()),
            )
            first = first or max(float(loss.detach()), 1e-30)
            loss = 2 * loss / first + self._penalty(rounding, step)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            for schedule in schedules:
                schedule.step()
            progress(step + 1)
        return UnitResult(
            {key: fake.quantizer() for key, fake in fakes.items()},
            {name: r.quantized() for name, r in rounding.items()},
        )

    def _penalty(self, rounding: Mapping[str, TrainableRounding], step: int) -> Tensor:
        settings = self.settings
        start = settings.warmup * settings.iterations
        if step < start:
            return torch.zeros(())
        done = (step - start) / max(settings.iterations - start, 1)
        beta = 20 + (2 - 20) * done
        total = sum((r.penalty(beta) for r in rounding.values()), torch.zeros(()))
        return settings.regularizer * total

    def _rounding(self, product: fx.Node) -> TrainableRounding:
        weight, _ = weight_and_bias(self.graph, product)
        target = weight_format(product.name, self.plan, self.recipe)
        return TrainableRounding(weight, self.weights[product.name], target)

    def _keys(self, unit: Unit) -> list[str]:
        keys = [n.name for n in unit.nodes if n.name in self.activations]
        names = {n.name for n in unit.products}
        keys += [c.key for (product, _), c in self.plan.copies.items() if product in names]
        return list(dict.fromkeys(keys))

    @staticmethod
    def _is_trained(quantizer: Quantizer) -> bool:
        if isinstance(quantizer, UniformQuantizer):
            return quantizer.format.dtype == "int8" and quantizer.format.fixed is None
        return True


def _over_photos(student: Student, unit: Unit) -> Callable[[Values], Values]:
    def one(*values: Tensor) -> tuple[Tensor, ...]:
        outputs = student.unit(unit, dict(zip(keys, values, strict=True)))
        return tuple(outputs[node] for node in unit.outputs)

    keys: list[fx.Node] = []
    several = torch.vmap(one, randomness="different")

    def run(values: Values) -> Values:
        keys[:] = list(values)
        return dict(zip(unit.outputs, several(*values.values()), strict=True))

    return run


def _in_chunks(run: Callable[[Values], Values], values: Values) -> Values:
    count = len(next(iter(values.values())))
    parts = []
    with torch.no_grad():
        for start in range(0, count, _CHUNK):
            parts.append(run({n: v[start : start + _CHUNK] for n, v in values.items()}))
    return {node: torch.cat([part[node] for part in parts]) for node in parts[0]}


def _mixed(quantized: Tensor, exact: Tensor, drop: float, random: torch.Generator) -> Tensor:
    """Every element from either, the exact one with probability `drop`."""
    if drop == 0 or quantized is exact:
        return quantized
    return torch.where(torch.rand(quantized.shape, generator=random) < drop, exact, quantized)


def _loss(outputs: Tensor, wanted: Tensor, is_logits: bool) -> Tensor:
    if is_logits:
        flat, target = outputs.flatten(0, -2), wanted.flatten(0, -2)
        return functional.kl_div(
            flat.log_softmax(-1), target.log_softmax(-1), reduction="batchmean", log_target=True
        )
    return (outputs - wanted).square().mean()


def _is_logits(node: fx.Node) -> bool:
    return any(user.op == "output" for user in walk.consumers(node))


def _advance(progress: Callable[[int, int], None], before: int, total: int, steps: int) -> None:
    progress(before + steps, total)
