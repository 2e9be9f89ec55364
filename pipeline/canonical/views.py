"""Every view becomes one of reshape, permute, slice, select and constant padding."""

import operator
from typing import Any

from pipeline.canonical.graph import (
    PERMUTE,
    RESHAPE,
    SELECT,
    SLICE,
    GraphModule,
    Node,
    Target,
    aten,
    call,
    calls,
    replace,
    shape,
)

_RESHAPES: frozenset[Target] = frozenset(
    {
        RESHAPE,
        aten.view.default,
        aten._unsafe_view.default,
        aten.reshape_as.default,
        aten.view_as.default,
        aten.flatten.using_ints,
        aten.unflatten.int,
        aten.unsqueeze.default,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
    }
)
_SWAPS: frozenset[Target] = frozenset(
    {aten.transpose.int, aten.swapaxes.default, aten.t.default, aten.numpy_T.default}
)
_SPLITS: frozenset[Target] = frozenset(
    {aten.split.Tensor, aten.split.sizes, aten.split_with_sizes.default, aten.chunk.default}
)


def normalise_views(gm: GraphModule) -> None:
    """Rewrites views, with static shapes and dimensions counted from the front."""
    for node in calls(gm):
        if node.target in _RESHAPES:
            replace(gm, node, call(gm, node, RESHAPE, node.args[0], list(shape(node))))
        elif node.target in _SWAPS or node.target is PERMUTE:
            _to_permute(gm, node)
        elif node.target is operator.getitem:
            _to_slice_or_select(gm, node)
        elif node.target is aten.narrow.default:
            source, dim, start, length = node.args
            new = call(gm, node, SLICE, source, dim, start, start + length)  # type: ignore[operator]
            replace(gm, node, new)
        elif node.target is aten.pad.default and _mode(node) == "constant":
            source, pads, *rest = node.args
            value = float(rest[1]) if len(rest) > 1 and rest[1] is not None else 0.0  # type: ignore[arg-type]
            replace(gm, node, call(gm, node, aten.constant_pad_nd.default, source, pads, value))


def _mode(node: Node) -> object:
    return node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")


def _to_permute(gm: GraphModule, node: Node) -> None:
    source: Any = node.args[0]
    rank = len(shape(source))
    dims = list(range(rank))
    if node.target is PERMUTE:
        dims = [int(d) % rank for d in node.args[1]]  # type: ignore[union-attr, arg-type]
    elif len(node.args) == 3:
        first, second = (int(d) % rank for d in node.args[1:])  # type: ignore[arg-type]
        dims[first], dims[second] = dims[second], dims[first]
    else:
        dims.reverse()
    replace(gm, node, call(gm, node, PERMUTE, source, dims))


def _to_slice_or_select(gm: GraphModule, node: Node) -> None:
    """One output of an unbind, split or chunk."""
    parts, index = node.args
    assert isinstance(parts, Node) and isinstance(index, int)
    source: Any = parts.args[0]
    sizes = [tuple(value.shape) for value in parts.meta["val"]]
    if parts.target is aten.unbind.int:
        dim = parts.args[1] if len(parts.args) > 1 else parts.kwargs.get("dim", 0)
        new = call(gm, node, SELECT, source, int(dim) % len(shape(source)), index)  # type: ignore[arg-type]
    elif parts.target in _SPLITS:
        position = parts.args[2] if len(parts.args) > 2 else parts.kwargs.get("dim", 0)
        dim = int(position) % len(shape(source))  # type: ignore[arg-type]
        start = sum(size[dim] for size in sizes[:index])
        new = call(gm, node, SLICE, source, dim, start, start + sizes[index][dim])
    else:
        return
    replace(gm, node, new)
