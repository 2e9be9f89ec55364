"""Subtraction, division, scalars and pooling in terms of add, mul and mean."""

from collections.abc import Callable
from typing import Any

import torch

from pipeline.canonical.graph import (
    ADD,
    MEAN,
    MUL,
    GraphModule,
    Node,
    Target,
    aten,
    call,
    calls,
    constant,
    replace,
    shape,
)

_BROADCASTING: frozenset[Target] = frozenset({ADD, MUL, aten.sub.Tensor, aten.div.Tensor})


def normalise_arithmetic(gm: GraphModule) -> None:
    """Leaves add and mul (a constant operand second), mean, hardtanh and explicit resizes."""
    for node in calls(gm):
        rewrite = _REWRITES.get(node.target)  # type: ignore[arg-type]
        if rewrite is not None:
            rewrite(gm, node)


def _to_tensor(value: object) -> Any:
    """A node as it is, a number as a tensor that `call` turns into a constant."""
    return value if isinstance(value, Node) else torch.tensor(float(value))  # type: ignore[arg-type]


def _commutative(gm: GraphModule, node: Node) -> None:
    """Add and mul: no `alpha`, no bare numbers, the constant second, broadcast operands first."""
    left, right = node.args[0], node.args[1]
    alpha = node.kwargs.get("alpha", 1)
    if alpha != 1:
        right = call(gm, node, MUL, right, _to_tensor(alpha))
    is_constant = [not isinstance(v, Node) or v.op == "get_attr" for v in (left, right)]
    if all(is_constant):
        return
    if is_constant[0]:
        left, right = right, left
    if (left, right) != tuple(node.args) or alpha != 1 or not isinstance(right, Node):
        assert callable(node.target)
        replace(gm, node, call(gm, node, node.target, left, _to_tensor(right)))


def _subtract(gm: GraphModule, node: Node) -> None:
    left, right = _to_tensor(node.args[0]), node.args[1]
    factor = -float(node.kwargs.get("alpha", 1))  # type: ignore[arg-type]
    value = constant(gm, right)
    if not isinstance(right, Node):
        new = call(gm, node, ADD, left, torch.tensor(float(right) * factor))  # type: ignore[arg-type]
    elif value is not None:
        new = call(gm, node, ADD, left, value.double() * factor)
    else:
        negative = call(gm, node, MUL, right, torch.tensor(factor))
        first, second = (left, negative) if isinstance(left, Node) else (negative, left)
        new = call(gm, node, ADD, first, second)
    replace(gm, node, new)


def _subtract_from(gm: GraphModule, node: Node) -> None:
    """`rsub`: a number minus an activation."""
    source, minuend, *rest = node.args
    factor = -float(rest[0]) if rest else -1.0  # type: ignore[arg-type]
    negative = call(gm, node, MUL, source, torch.tensor(factor))
    replace(gm, node, call(gm, node, ADD, negative, _to_tensor(minuend)))


def _divide(gm: GraphModule, node: Node) -> None:
    left, right = node.args
    value = constant(gm, right)
    if value is None and isinstance(right, Node):
        return  # a quotient of two activations is not canonical; the verifier names it
    divisor = torch.tensor(float(right)) if value is None else value  # type: ignore[arg-type]
    replace(gm, node, call(gm, node, MUL, left, 1 / divisor.double()))


def _negate(gm: GraphModule, node: Node) -> None:
    replace(gm, node, call(gm, node, MUL, node.args[0], torch.tensor(-1.0)))


def _relu6(gm: GraphModule, node: Node) -> None:
    replace(gm, node, call(gm, node, aten.hardtanh.default, node.args[0], 0.0, 6.0))


def _global_pool(gm: GraphModule, node: Node) -> None:
    """Adaptive pooling to one value is a mean, to the same size nothing."""
    source: Any = node.args[0]
    if shape(node)[-2:] == (1, 1):
        rank = len(shape(node))
        replace(gm, node, call(gm, node, MEAN, source, [rank - 2, rank - 1], True))
    elif shape(node) == shape(source):
        replace(gm, node, source)


def _pool_without_padding(gm: GraphModule, node: Node) -> None:
    """Where nothing is padded, whether padding counts is of no consequence."""
    if node.args[3] == [0, 0] and node.args[5]:
        node.update_arg(5, False)


def _resize(gm: GraphModule, node: Node) -> None:
    """A whole scale factor becomes the size that it leads to."""
    source: Any = node.args[0]
    align, scales = node.args[2], node.args[3] if len(node.args) > 3 else None
    size = shape(node)[-2:]
    if scales is not None and any(
        s * f != o
        for s, f, o in zip(shape(source)[-2:], scales, size, strict=True)  # type: ignore[arg-type]
    ):
        return  # the true factor is not the ratio of the sizes; the verifier names it
    node.args, node.kwargs = (source, list(size), align, None), {}


def _drop_expand(gm: GraphModule, node: Node) -> None:
    """Element-wise operators broadcast by themselves."""
    source = node.args[0]
    assert isinstance(source, Node)
    if len(shape(source)) == len(shape(node)) and all(
        user.target in _BROADCASTING and _broadcasts_to(user, node) for user in node.users
    ):
        replace(gm, node, source)


def _broadcasts_to(user: Node, expanded: Node) -> bool:
    others = [n for n in user.all_input_nodes if n is not expanded]
    return any(shape(other) == shape(user) for other in others)


_REWRITES: dict[Target, Callable[[GraphModule, Node], None]] = {
    ADD: _commutative,
    MUL: _commutative,
    aten.sub.Tensor: _subtract,
    aten.rsub.Scalar: _subtract_from,
    aten.div.Tensor: _divide,
    aten.neg.default: _negate,
    aten.relu6.default: _relu6,
    aten.adaptive_avg_pool2d.default: _global_pool,
    aten.avg_pool2d.default: _pool_without_padding,
    aten.upsample_bilinear2d.vec: _resize,
    aten.expand.default: _drop_expand,
    aten.expand_as.default: _drop_expand,
}
