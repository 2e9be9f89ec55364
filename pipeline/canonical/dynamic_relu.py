"""Dynamic ReLU becomes one operator, whose gates have a fixed range."""

from typing import Any

import torch

from pipeline.canonical.graph import (
    ADD,
    MUL,
    RESHAPE,
    GraphModule,
    Node,
    aten,
    call,
    calls,
    constant,
    is_call,
    replace,
    shape,
)
from pipeline.operators import DYNAMIC_RELU


def rewrite_dynamic_relu(gm: GraphModule) -> None:
    """`max(2 g x, (2 h - 1) x)` with hard sigmoids g and h (Mobile-Former, arXiv 2003.10027)."""
    for node in calls(gm, aten.maximum.default):
        left, right = node.args
        if not is_call(left, MUL) or not is_call(right, MUL):
            continue
        for x, slope in (left.args[:2], left.args[1::-1]):  # type: ignore[union-attr]
            other = _other(right, x)
            if other is None or shape(x) != shape(node):  # type: ignore[arg-type]
                continue
            first, second = _gate(gm, slope, 0.0), _gate(gm, other, -1.0)
            if first is not None and second is not None:
                replace(gm, node, call(gm, node, DYNAMIC_RELU, x, first, second))
                break


def _other(product: Any, x: object) -> object | None:
    """The operand of a product that is not `x`."""
    left, right = product.args[:2]
    return right if left is x else left if right is x else None


def _gate(gm: GraphModule, slope: Any, offset: float) -> Node | None:
    """The g of `2 g + offset`, a hard sigmoid and perhaps a reshape."""
    if offset:
        if not is_call(slope, ADD) or not _equals(gm, slope.args[1], offset):
            return None
        slope = slope.args[0]
    if not is_call(slope, MUL) or not _equals(gm, slope.args[1], 2.0):
        return None
    gate: Node = slope.args[0]
    source: Any = gate
    while is_call(source, RESHAPE):
        source = source.args[0]
    return gate if is_call(source, aten.hardsigmoid.default) else None


def _equals(gm: GraphModule, node: object, expected: float) -> bool:
    value = constant(gm, node)
    return value is not None and bool(torch.all(value == expected))
