"""MLPs of a canonical graph, and the graph with ReLU in place of their activations."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from pipeline.quant import walk

_aten = torch.ops.aten
RELU = _aten.relu.default
SMOOTH = frozenset({walk.GELU, _aten.silu.default})
"""Activations that ReLU can stand in for."""


@dataclass(frozen=True)
class Mlp:
    """Two products for every token, or pixel, with an activation between.

    Attributes:
        expand: the first product.
        act: the activation.
        reduce: the second product.
    """

    expand: fx.Node
    act: fx.Node
    reduce: fx.Node


def find_mlps(graph: fx.Graph) -> list[Mlp]:
    """All MLPs in the order of the graph: linears or 1x1 convolutions around GELU or SiLU."""
    found = []
    for act in graph.nodes:
        if act.target not in SMOOTH or len(act.users) != 1:
            continue
        expand, (reduce,) = walk.input_of(act), act.users
        if _is_dense(expand) and _is_dense(reduce) and len(expand.users) == 1:
            found.append(Mlp(expand, act, reduce))
    return found


def _is_dense(node: fx.Node) -> bool:
    return node.target is walk.LINEAR or walk.is_pointwise_conv(node)


def rectify(
    graph: fx.GraphModule,
    activations: Iterable[str],
    tensors: Mapping[str, tuple[Tensor, Tensor]] | None = None,
) -> fx.GraphModule:
    """A copy of the graph with ReLU in place of some activations.

    Args:
        graph: canonical graph; it is not changed.
        activations: names of the activations.
        tensors: product -> weight and bias in place of its own.

    Raises:
        KeyError: there is no such activation.
    """
    result = copy.deepcopy(graph)
    nodes = {node.name: node for node in result.graph.nodes}
    for name in activations:
        if nodes[name].target not in SMOOTH:
            raise KeyError(name)
        nodes[name].target = RELU
        nodes[name].args, nodes[name].kwargs = nodes[name].args[:1], {}
    for name, (weight, bias) in (tensors or {}).items():
        node = nodes[name]
        with result.graph.inserting_before(node):
            constants = [
                _constant(result, f"{name}_trained_{part}", value)
                for part, value in (("weight", weight), ("bias", bias))
            ]
        node.args = (node.args[0], *constants, *node.args[3:])
    result.recompile()
    return result


def _constant(graph: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    graph.register_buffer(name, value.contiguous())
    node = graph.graph.get_attr(name)
    node.meta = {"val": value.to("meta")}
    return node
