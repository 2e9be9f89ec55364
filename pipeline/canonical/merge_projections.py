"""Sums of two projections become one, e.g. the averaged heads of a distilled model."""

from typing import Any

import torch

from pipeline.canonical.graph import (
    ADD,
    CAT,
    CONV,
    LINEAR,
    RESHAPE,
    SELECT,
    SLICE,
    GraphModule,
    Node,
    call,
    calls,
    is_call,
    path,
    replace,
    shape,
    weights,
)


def merge_projections(gm: GraphModule) -> None:
    """Rewrites `f(x) + g(x)` for equal kinds of projections, and `f(x) + g(y)` for the logits.

    The second form reads both inputs side by side: [F G] [x; y] = F x + G y.
    """
    for node in calls(gm, ADD):
        left, right = node.args[:2]
        if left is right or not all(
            is_call(p, LINEAR, CONV) and len(p.users) == 1  # type: ignore[union-attr]
            for p in (left, right)
        ):
            continue
        assert isinstance(left, Node) and isinstance(right, Node)
        left_weights, right_weights = weights(gm, left), weights(gm, right)
        if left.target is not right.target or left_weights is None or right_weights is None:
            continue
        (first, first_bias), (second, second_bias) = left_weights, right_weights
        biases = [b.double() for b in (first_bias, second_bias) if b is not None]
        bias = torch.stack(biases).sum(0) if biases else None
        source: Any = left.args[0]
        if source is right.args[0]:
            if left.args[3:] != right.args[3:] or first.shape != second.shape:
                continue
            weight = first.double() + second.double()
        elif _gives_logits(node) and shape(source) == shape(right.args[0]):  # type: ignore[arg-type]
            weight = torch.cat([first, second], dim=1)
            source = _side_by_side(gm, node, source, right.args[0])
        else:
            continue
        assert callable(left.target)
        arguments = (source, weight, bias, *left.args[3:])
        replace(gm, node, call(gm, node, left.target, *arguments, module_path=path(left)))


def _gives_logits(node: Node) -> bool:
    (left, right) = node.args[:2]
    two_dimensional = len(shape(node)) == 2 and is_call(left, LINEAR) and is_call(right, LINEAR)
    return two_dimensional and all(user.op == "output" for user in node.users)


def _side_by_side(gm: GraphModule, node: Node, left: Node, right: Any) -> Node:
    """`[1, C]` and `[1, C]` to `[1, 2C]`; a slice where both are neighbouring tokens."""
    if is_call(left, SELECT) and is_call(right, SELECT):
        tokens, dim, index = left.args
        if right.args == (tokens, dim, index + 1) and dim == len(shape(left)) - 1:  # type: ignore[operator]
            both = call(gm, node, SLICE, tokens, dim, index, index + 2, 1)  # type: ignore[operator]
            return call(gm, node, RESHAPE, both, [shape(left)[0], 2 * shape(left)[1]])
    return call(gm, node, CAT, [left, right], 1)
