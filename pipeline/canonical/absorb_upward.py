"""Multiplications and additions of constants move into the weights that produce their input."""

from typing import Any

from torch import Tensor

from pipeline.canonical.broadcast import along, back_through, compress, vector
from pipeline.canonical.graph import (
    ADD,
    BIJECTIVE_VIEWS,
    CONV,
    MATMUL,
    MUL,
    PROJECTIONS,
    GraphModule,
    Node,
    calls,
    constant,
    is_call,
    new_constant,
    refresh,
    replace,
    set_weights,
    shape,
    weights,
)

Plan = list[tuple[Node, Tensor]]
"""Nodes whose constants change, each with a constant of the full shape of the node's output."""


def absorb_upward(gm: GraphModule) -> None:
    """Folds scales and shifts into the projection, or the constant operand, before them.

    Covers batch normalisation after a convolution or linear layer, layer scale, the attention
    scale (into the query's weights or the key's, or a constant query, through the product) and sums
    of constants (bias + mask).
    """
    for node in calls(gm, MUL, ADD):
        source: Any = node.args[0]
        value = constant(gm, node.args[1])
        if value is None or not isinstance(source, Node) or shape(source) != shape(node):
            continue
        full = value.double().expand(shape(node))
        scales = node.target is MUL
        plan = _plan_scale(gm, source, full) if scales else _plan_shift(gm, source, full)
        if plan is not None:
            for place, amount in plan:
                (_scale if scales else _shift)(gm, place, amount)
            replace(gm, node, source)


def _plan_scale(gm: GraphModule, node: Node, value: Tensor) -> Plan | None:
    """Where a factor on a node's output can go; None if it has to stay."""
    if len(node.users) != 1:
        return None
    if node.target in PROJECTIONS:
        return [(node, value)] if _fits(gm, node, value) else None
    if constant(gm, node) is not None:
        return [(node, value)]
    if node.target in BIJECTIVE_VIEWS:
        return _plan_scale(gm, node.all_input_nodes[0], back_through(node, value))
    if not is_call(node, MUL, ADD, MATMUL):
        return None
    left, right = (node.args[0], node.args[1])
    assert isinstance(left, Node)
    if node.target is MATMUL:
        if left is right:
            return None
        found = (_plan_operand(gm, operand, compress(value)) for operand in (left, right))
        return next((plan for plan in found if plan is not None), None)
    if constant(gm, right) is not None:
        here: Plan = [(node, value)]
        if node.target is MUL:
            return here
        above = _plan_scale(gm, left, value) if shape(left) == shape(node) else None
        return None if above is None else here + above
    if node.target is ADD and isinstance(right, Node) and left is not right:
        if not shape(left) == shape(right) == shape(node):
            return None
        plans = [_plan_scale(gm, operand, value) for operand in (left, right)]
        return None if None in plans else [step for plan in plans if plan for step in plan]
    return None


def _plan_operand(gm: GraphModule, operand: Any, small: Tensor) -> Plan | None:
    """Where a factor that is the same for a whole product can go on one side of it."""
    sizes = shape(operand)
    if small.shape[-2:] != (1, 1) or small.dim() != len(sizes):
        return None
    if any(size not in (1, own) for size, own in zip(small.shape, sizes, strict=True)):
        return None
    return _plan_scale(gm, operand, small.expand(sizes))


def _plan_shift(gm: GraphModule, node: Node, value: Tensor) -> Plan | None:
    """Where an offset on a node's output can go; None if it has to stay."""
    if len(node.users) != 1:
        return None
    if node.target in PROJECTIONS:
        return [(node, value)] if _fits(gm, node, value) else None
    if node.target in BIJECTIVE_VIEWS:
        return _plan_shift(gm, node.all_input_nodes[0], back_through(node, value))
    if is_call(node, ADD) and constant(gm, node.args[1]) is not None:
        return [(node, value)]
    return None


def _channel(node: Node) -> int:
    return 1 if node.target is CONV else len(shape(node)) - 1


def _fits(gm: GraphModule, node: Node, value: Tensor) -> bool:
    return weights(gm, node) is not None and along(value, _channel(node)) is not None


def _scale(gm: GraphModule, node: Node, value: Tensor) -> None:
    own = constant(gm, node)
    if own is not None:
        setattr(gm, str(node.target), (own.double() * value).float())
        return
    if node.target not in PROJECTIONS:
        _combine(gm, node, value, multiply=True)
        return
    found, factor = weights(gm, node), along(value, _channel(node))
    assert found is not None and factor is not None
    weight, bias = found
    scaled = weight.double() * vector(factor, weight.dim(), 0)
    set_weights(gm, node, scaled, None if bias is None else bias.double() * factor)


def _shift(gm: GraphModule, node: Node, value: Tensor) -> None:
    if node.target not in PROJECTIONS:
        _combine(gm, node, value, multiply=False)
        return
    found, offset = weights(gm, node), along(value, _channel(node))
    assert found is not None and offset is not None
    weight, bias = found
    set_weights(gm, node, weight, offset if bias is None else bias.double() + offset)


def _combine(gm: GraphModule, node: Node, value: Tensor, multiply: bool) -> None:
    """Merges a constant into the constant operand of an add or mul."""
    own = constant(gm, node.args[1])
    assert own is not None
    full = own.double().expand(value.shape)
    node.update_arg(1, new_constant(gm, node, compress(full * value if multiply else full + value)))
    refresh(node)
