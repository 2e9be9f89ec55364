"""Weighted sums written as `(a * b).sum(dim)` become matrix products."""

from typing import Any

from pipeline.canonical.graph import (
    MATMUL,
    MUL,
    PERMUTE,
    RESHAPE,
    GraphModule,
    Node,
    aten,
    call,
    calls,
    is_call,
    replace,
    shape,
)


def rewrite_weighted_sums(gm: GraphModule) -> None:
    """`sum(k * p, dim)`, p broadcast along one dimension of k, becomes `p @ k`.

    This is the context vector of separable self-attention (MobileViTv2, arXiv 2206.02680, 3.2):
    p the softmax over pixels, `[B, 1, P, N]`, k the keys, `[B, d, P, N]`, summed over N.
    """
    for node in calls(gm, aten.sum.dim_IntList):
        product: Any = node.args[0]
        dims: Any = node.args[1]
        if not is_call(product, MUL) or len(dims) != 1:
            continue
        summed = dims[0] % len(shape(product))
        for keys, scores in (product.args, product.args[::-1]):
            if not isinstance(keys, Node) or not isinstance(scores, Node):
                continue
            spread = _broadcast_dimension(keys, scores, summed)
            if spread is not None:
                new = _matmul(gm, node, keys, scores, spread, summed)
                replace(gm, node, call(gm, node, RESHAPE, new, list(shape(node))))
                break


def _broadcast_dimension(keys: Node, scores: Node, summed: int) -> int | None:
    """The one dimension along which `scores` has size 1 and `keys` has not."""
    big, small = shape(keys), shape(scores)
    if len(big) != len(small):
        return None
    differing = [d for d, sizes in enumerate(zip(big, small, strict=True)) if sizes[0] != sizes[1]]
    if len(differing) != 1 or differing[0] == summed or small[differing[0]] != 1:
        return None
    return differing[0]


def _matmul(
    gm: GraphModule, node: Node, keys: Node, scores: Node, spread: int, summed: int
) -> Node:
    """Scores `[.., 1, N]` times keys `[.., N, d]`, back in the dimension order of the sum."""
    batch = [d for d in range(len(shape(keys))) if d not in (spread, summed)]
    left = call(gm, node, PERMUTE, scores, [*batch, spread, summed])
    right = call(gm, node, PERMUTE, keys, [*batch, summed, spread])
    product = call(gm, node, MATMUL, left, right)
    order = [*batch, summed, spread]
    return call(gm, node, PERMUTE, product, [order.index(d) for d in range(len(order))])
