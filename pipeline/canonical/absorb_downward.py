"""Multiplications and additions of constants move into the weights that read their output."""

from typing import Any

from torch import Tensor

from pipeline.canonical.broadcast import along, compress, through
from pipeline.canonical.graph import (
    ADD,
    CONV,
    LINEAR,
    MEAN,
    MUL,
    PROJECTIONS,
    VIEWS,
    GraphModule,
    Node,
    aten,
    call,
    calls,
    constant,
    erase,
    path,
    set_weights,
    shape,
    weights,
)

Plan = list[tuple[Node, Tensor]]
"""Projections, each with a constant of the full shape of its input."""

_RESIZE, _POOL = aten.upsample_bilinear2d.vec, aten.avg_pool2d.default


def absorb_downward(gm: GraphModule) -> None:
    """Folds scales and shifts into all the projections behind them, through views and means.

    Means, resizes and average pools are sums with weights that add up to 1, so constants pass them.
    Covers the affine part of layer and group normalisation, a batch normalisation without a
    convolution in front of it, position biases in front of a talking-head convolution, and the
    preprocessing in front of the stem. A shift that padding makes uneven is exact, too: it leaves
    the convolution as an added map without bias. What cannot be folded stays.
    """
    for node in reversed(list(calls(gm, MUL, ADD))):
        source: Any = node.args[0]
        value = constant(gm, node.args[1])
        if value is None or not isinstance(source, Node) or shape(source) != shape(node):
            continue
        scales = node.target is MUL
        plan = _plan(gm, node, value.double().expand(shape(node)), scales)
        if plan:
            node.replace_all_uses_with(source)
            erase(gm, node)
            for place, amount in plan:
                (_scale_input if scales else _shift_input)(gm, place, amount)


def _plan(gm: GraphModule, node: Node, value: Tensor, scales: bool) -> Plan | None:
    """Where a factor or offset on a node's output can go; None if any user cannot take it."""
    plan: Plan = []
    for user in node.users:
        if user.target in PROJECTIONS and user.args[0] is node:
            if weights(gm, user) is None or node in user.args[1:]:
                return None
            if scales and along(value, _input_channel(user)) is None:
                return None
            plan.append((user, value))
            continue
        passed = _through(user, value, scales)
        deeper = None if passed is None else _plan(gm, user, passed, scales)
        if deeper is None:
            return None
        plan += deeper
    return plan


def _through(user: Node, value: Tensor, scales: bool) -> Tensor | None:
    """The constant behind a view or an average, if it commutes with it."""
    if user.target in VIEWS:
        return through(user, value)
    small = compress(value)
    if user.target is MEAN:
        even = all(small.shape[d] == 1 for d in user.args[1])  # type: ignore[union-attr, index]
        return through(user, value) if even or not scales else None
    counts_padding = user.target is _POOL and user.args[5]
    if user.target in (_RESIZE, _POOL) and small.shape[2:] == (1, 1) and not counts_padding:
        return small.expand(shape(user))
    return None


def _input_channel(user: Node) -> int:
    return 1 if user.target is CONV else user.meta["val"].dim() - 1


def _scale_input(gm: GraphModule, node: Node, value: Tensor) -> None:
    found, factor = weights(gm, node), along(value, _input_channel(node))
    assert found is not None and factor is not None
    weight, bias = found
    groups: Any = node.args[6] if node.target is CONV else 1
    outputs, inputs, *taps = weight.shape
    grouped = weight.double().reshape(groups, outputs // groups, inputs, *taps)
    scaled = grouped * factor.reshape(groups, 1, inputs, *[1] * len(taps))
    set_weights(gm, node, scaled.reshape(weight.shape), bias)


def _shift_input(gm: GraphModule, node: Node, value: Tensor) -> None:
    found = weights(gm, node)
    assert found is not None and callable(node.target)
    weight, bias = (None if v is None else v.double() for v in found)
    assert weight is not None
    even = along(value, _input_channel(node))
    if even is not None and (node.target is LINEAR or node.args[4] == [0, 0]):
        set_weights(gm, node, weight, _even_response(node, weight, bias, even))
        return
    response = node.target(value.contiguous(), weight, bias, *node.args[3:])
    if (offset := along(response, _input_channel(node))) is not None:
        set_weights(gm, node, weight, offset)
        return
    users = list(node.users)
    set_weights(gm, node, weight, None)
    after = call(gm, node.next, ADD, node, compress(response), module_path=path(node))
    for user in users:
        user.replace_input_with(node, after)


def _even_response(node: Node, weight: Tensor, bias: Tensor | None, value: Tensor) -> Tensor:
    """A projection's output for the same input vector everywhere, as one value per channel."""
    groups: Any = node.args[6] if node.target is CONV else 1
    per_input = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    repeated = value.reshape(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1)
    response = (per_input * repeated.reshape(per_input.shape)).sum(1)
    return response if bias is None else response + bias
