"""Pooling mixers (PoolFormer, EfficientFormer): `x + g * (pool(x) - x)`."""

from torch import Tensor

from pipeline.canonical.graph import (
    ADD,
    MUL,
    GraphModule,
    Node,
    aten,
    call,
    calls,
    constant,
    replace,
)


def rewrite_pool_mixers(gm: GraphModule) -> None:
    """`x + g * (p - x)` becomes `(1 - g) * x + g * p`, for a constant g.

    The difference of two nearly equal tensors would need a fine quantizer of its own.
    """
    for node in calls(gm, ADD):
        for x, scaled in (node.args[:2], node.args[1::-1]):
            match = _scaled_difference(gm, scaled, x)
            if match is not None:
                pooled, gate = match
                kept = call(gm, node, MUL, x, 1 - gate.double())
                mixed = call(gm, node, MUL, pooled, gate)
                replace(gm, node, call(gm, node, ADD, kept, mixed))
                break


def _scaled_difference(gm: GraphModule, scaled: object, x: object) -> tuple[Node, Tensor] | None:
    """The p and g of `g * (p - x)`, if that is what `scaled` is."""
    if not isinstance(scaled, Node) or scaled.target is not MUL:
        return None
    for difference, factor in (scaled.args, scaled.args[::-1]):
        gate = constant(gm, factor)
        if (
            gate is not None
            and isinstance(difference, Node)
            and difference.target is aten.sub.Tensor
            and difference.args[1] is x
            and isinstance(difference.args[0], Node)
            and not difference.kwargs
        ):
            return difference.args[0], gate
    return None
