"""Bridges: products between maps and tokens, found in the structure of the graph.

Hybrid networks lose most where convolutions hand over to transformer blocks and back. There the
products are searched on what the quantized products before them in the same bridge compute; all
else sees the float network. Source: Q-HyViT (2023), section III-B.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.constant_operands import restored_operands
from pipeline.quant.images import as_input
from pipeline.quant.plan import Plan, product_operands
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.recipe import Recipe
from pipeline.quant.rounding import rounded_weight
from pipeline.quant.search.run import Choice, search_products
from pipeline.quant.search.settings import Search
from pipeline.quant.sites import Sampling, Site, SiteSampler, seen_by
from pipeline.quant.student import Student

Bridge = tuple[fx.Node, ...]
"""Products in the order of the graph."""


def find_bridges(graph: fx.Graph, plan: Plan) -> list[Bridge]:
    """Groups of products that turn maps into tokens or back, with nothing but views, norms and
    functions of single values in between; of a sum's operands, the one computed last counts."""
    position = {node: index for index, node in enumerate(graph.nodes)}
    together: dict[fx.Node, set[fx.Node]] = {}
    for node in position:
        if node.target not in walk.GEMMS:
            continue
        for operand in product_operands(node):
            for before in _products_behind(operand, position):
                if _is_on_maps(before, plan) != _is_on_maps(node, plan):
                    joined = together.get(before, {before}) | together.get(node, {node})
                    together |= dict.fromkeys(joined, joined)
    groups = {tuple(sorted(group, key=position.__getitem__)) for group in together.values()}
    return sorted(groups, key=lambda group: position[group[0]])


def _is_on_maps(product: fx.Node, plan: Plan) -> bool:
    return product.target is walk.CONV and product.name not in plan.roles.heads_mixers


def _products_behind(tensor: fx.Node, position: Mapping[fx.Node, int]) -> Iterator[fx.Node]:
    if tensor.target in walk.GEMMS:
        yield tensor
        return
    inputs = [node for node in tensor.all_input_nodes if not walk.is_constant(node)]
    if tensor.target in walk.POOLS or not inputs:
        return
    if tensor.target is walk.CAT or walk.is_sum(tensor):
        inputs = [max(inputs, key=position.__getitem__)]
    for node in inputs:
        yield from _products_behind(node, position)


@dataclass(frozen=True)
class _Crossing:
    """Products of a bridge behind quantized ones.

    Attributes:
        products: those that read the same, such as the linears of q, k and v.
        before: products of the bridge in front of it.
        nodes: operators from those to these, in the order of the graph.
        inputs: tensors that the operators read from elsewhere.
    """

    products: Bridge
    before: Bridge
    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]


def search_bridges(
    graph: fx.GraphModule,
    plan: Plan,
    recipe: Recipe,
    settings: Search,
    photos: Sequence[np.ndarray[Any, Any]],
    sampling: Sampling,
    sites: Mapping[str, Site],
    start: Mapping[str, Quantizer],
    choice: Choice,
    importance: Mapping[str, Tensor],
) -> None:
    """Search the products of bridges again, behind quantized ones; updates the choice.

    Args:
        graph: canonical graph.
        plan: its plan.
        recipe: formats of weights.
        settings: how to search.
        photos: uint8 `[H, W, 3]`, those of the sites.
        sampling: that of the sites.
        sites: samples of the float network.
        start: quantizers by observers.
        choice: what the search of all products in parallel found.
        importance: weight of every sampled output, by product.
    """
    crossings = [
        c for b in find_bridges(graph.graph, plan) for c in _crossings(graph.graph, plan, b)
    ]
    floats = _tensors(graph, photos, {node for c in crossings for node in c.inputs})
    for crossing in crossings:
        found = {**start, **choice.activations}
        seen = _sites(graph, plan, recipe, sampling, crossing, floats, found, choice)
        again = search_products(
            graph.graph,
            plan,
            recipe,
            settings,
            seen_by(seen, sites),
            found,
            importance,
            settled=_read_by_others(graph.graph, plan, crossing.products),
        )
        choice.activations.update(again.activations)
        choice.rows.update(again.rows)


def _crossings(graph: fx.Graph, plan: Plan, bridge: Bridge) -> Iterator[_Crossing]:
    groups: dict[tuple[str, ...], list[fx.Node]] = {}
    for node in bridge:
        groups.setdefault(_keys(node, plan), []).append(node)
    earlier: list[fx.Node] = []
    for products in groups.values():
        ahead, behind = _reached(earlier, graph), _needed(products)
        nodes = tuple(n for n in graph.nodes if n in ahead and n in behind)
        inputs = {
            source: None
            for node in nodes
            for source in node.all_input_nodes
            if source not in nodes and not walk.is_constant(source)
        }
        if nodes:
            before = tuple(node for node in earlier if node in behind)
            yield _Crossing(tuple(products), before, nodes, tuple(inputs))
        earlier += products


def _keys(product: fx.Node, plan: Plan) -> tuple[str, ...]:
    return tuple(plan.key_of(product, index) for index in range(len(product_operands(product))))


def _reached(starts: Iterable[fx.Node], graph: fx.Graph) -> set[fx.Node]:
    reached = set(starts)
    for node in graph.nodes:
        if any(source in reached for source in node.all_input_nodes):
            reached.add(node)
    return reached


def _needed(ends: Iterable[fx.Node]) -> set[fx.Node]:
    waiting = list(ends)
    needed = set(waiting)
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in needed:
                needed.add(source)
                waiting.append(source)
    return needed


def _read_by_others(graph: fx.Graph, plan: Plan, products: Bridge) -> set[str]:
    """Keys of what the products read together with others: they stay."""
    mine = {key for product in products for key in _keys(product, plan)}
    others = (n for n in graph.nodes if n.target in walk.GEMMS and n not in products)
    return mine & {key for other in others for key in _keys(other, plan)}


def _tensors(
    graph: fx.GraphModule, photos: Sequence[np.ndarray[Any, Any]], wanted: set[fx.Node]
) -> list[dict[fx.Node, Tensor]]:
    """Some tensors of the float network for every photo."""
    kept: list[dict[fx.Node, Tensor]] = []

    class Keep(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in wanted:
                kept[-1][n] = value
            return value

    keep = Keep(graph)
    with torch.no_grad():
        for photo in photos if wanted else ():
            kept.append({})
            keep.run(as_input(photo, graph))
    return kept


def _sites(
    graph: fx.GraphModule,
    plan: Plan,
    recipe: Recipe,
    sampling: Sampling,
    crossing: _Crossing,
    floats: Sequence[Mapping[fx.Node, Tensor]],
    found: Mapping[str, Quantizer],
    choice: Choice,
) -> dict[str, Site]:
    """Samples of the crossing's products behind the quantized products of its bridge."""
    keys = {node.name for node in crossing.nodes}
    keys = keys.union(*(_keys(node, plan) for node in crossing.before))
    keys = keys.difference(*(_keys(node, plan) for node in crossing.products))
    fakes = {key: found[key].fake for key in keys if key in found}
    weights = {
        node.name: rounded_weight(
            graph, node, plan, recipe, found, choice.rows.get(node.name)
        ).dequantized()
        for node in crossing.before
        if node.target in walk.WEIGHTED
    }
    operands = restored_operands(graph)
    weights |= {node.name: operands[node.name] for node in crossing.before if node.name in operands}
    student = Student(graph, plan, fakes, weights, {})
    sampler = SiteSampler(graph, sampling)
    with torch.no_grad():
        for values in floats:
            inputs = {
                node: fakes.get(walk.source(node).name, _same)(values[node])
                for node in crossing.inputs
            }
            student.run(crossing.nodes, inputs, partial(_sample, sampler, crossing.products))
            sampler.end_photo()
    return sampler.sites()


def _same(value: Tensor) -> Tensor:
    return value


def _sample(
    sampler: SiteSampler,
    wanted: Bridge,
    product: fx.Node,
    read: tuple[Tensor, ...],
    result: Tensor,
) -> None:
    if product in wanted:
        sampler.observe(product, read)
