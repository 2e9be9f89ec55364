"""Channel shuffles move into the weights around them."""

from typing import Any

import torch
from torch import Tensor

from pipeline.canonical.broadcast import through
from pipeline.canonical.graph import (
    CONV,
    LINEAR,
    PERMUTE,
    RESHAPE,
    GraphModule,
    Node,
    aten,
    call,
    calls,
    is_call,
    replace,
    set_weights,
    shape,
    weights,
)
from pipeline.operators import DYNAMIC_RELU

_UNARY = frozenset(
    {
        aten.relu.default,
        aten.hardtanh.default,
        aten.silu.default,
        aten.gelu.default,
        aten.hardswish.default,
        aten.hardsigmoid.default,
        aten.sigmoid.default,
    }
)

Plan = tuple[list[Node], list[Node]]
"""Projections whose outputs, and those whose inputs are to be put in another order."""


def fold_shuffles(gm: GraphModule) -> None:
    """Reorders the weights of dense projections before or behind a shuffle of channels.

    Element-wise functions in between are passed, dynamic ReLUs with the projections of their gates.
    """
    for node in reversed(list(calls(gm, PERMUTE))):  # of two shuffles, the latter goes first
        found = _shuffle(node)
        if found is None:
            continue
        source, order = found
        if _is_dense(gm, source) and len(source.users) == 1:
            _reorder_outputs(gm, source, order)
            replace(gm, node, call(gm, node, RESHAPE, source, list(shape(node))))
            continue
        shuffled, *others = node.users
        if others or not is_call(shuffled, RESHAPE) or shape(shuffled) != shape(source):
            continue
        plan = _plan(gm, shuffled)
        if plan is not None:
            for projection in plan[0]:
                _reorder_outputs(gm, projection, order.argsort())
            for projection in plan[1]:
                _reorder_inputs(gm, projection, order.argsort())
            replace(gm, shuffled, source)


def _shuffle(node: Node) -> tuple[Node, Tensor] | None:
    """The map `[1, C, H, W]` whose channels a reshape and a permutation put in another order."""
    first: Any = node.args[0]
    if not is_call(first, RESHAPE) or len(first.users) != 1:
        return None
    source: Any = first.args[0]
    sizes = shape(source)
    if len(sizes) != 4 or len(shape(node)) != 5:
        return None
    index = through(node, through(first, torch.arange(torch.Size(sizes).numel()).reshape(sizes)))
    pixels = sizes[2] * sizes[3]
    rows = index.reshape(sizes[1], pixels)
    order = rows[:, 0] // pixels
    whole = order[:, None] * pixels + torch.arange(pixels)
    return (source, order) if torch.equal(rows, whole) else None


def _plan(gm: GraphModule, node: Node) -> Plan | None:
    """What has to change if the readers of a map get its channels in another order."""
    outputs: list[Node] = []
    inputs: list[Node] = []
    for user in node.users:
        if user.target is CONV and user.args[0] is node and _is_dense(gm, user):
            inputs.append(user)
            continue
        if user.target is DYNAMIC_RELU and user.args[0] is node:
            gates = [_gate_projection(gm, gate) for gate in user.args[1:]]
            if any(gate is None for gate in gates):
                return None
            outputs += [gate for gate in gates if gate is not None]
        elif user.target not in _UNARY:
            return None
        deeper = _plan(gm, user)
        if deeper is None:
            return None
        outputs, inputs = outputs + deeper[0], inputs + deeper[1]
    return outputs, inputs


def _gate_projection(gm: GraphModule, gate: Any) -> Node | None:
    """The linear layer that makes one value per channel, and nothing else."""
    while gate.target in (*_UNARY, RESHAPE) and len(gate.users) == 1:
        gate = gate.args[0]
    fits = gate.target is LINEAR and len(gate.users) == 1 and weights(gm, gate) is not None
    return gate if fits and shape(gate)[:-1] == (1,) else None


def _is_dense(gm: GraphModule, node: Node) -> bool:
    return node.target is CONV and bool(node.args[6] == 1) and weights(gm, node) is not None


def _reorder_outputs(gm: GraphModule, node: Node, order: Tensor) -> None:
    found = weights(gm, node)
    assert found is not None
    weight, bias = found
    set_weights(gm, node, weight[order], None if bias is None else bias[order])


def _reorder_inputs(gm: GraphModule, node: Node, order: Tensor) -> None:
    found = weights(gm, node)
    assert found is not None
    set_weights(gm, node, found[0][:, order], found[1])
