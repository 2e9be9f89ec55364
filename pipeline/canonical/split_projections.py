"""Fused projections (q, k and v in one layer) become one projection per part."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.canonical.broadcast import through
from pipeline.canonical.graph import (
    BIJECTIVE_VIEWS,
    CONV,
    PERMUTE,
    PROJECTIONS,
    RESHAPE,
    SELECT,
    SLICE,
    GraphModule,
    Node,
    call,
    calls,
    path,
    replace,
    shape,
    weights,
)


@dataclass(frozen=True)
class Part:
    """One slice of a projection's output channels, as seen through views.

    Attributes:
        leaf: the slice or select.
        channels: the output channels that it keeps, ascending.
        sizes: shape to which the part's own projection output is reshaped.
        dims: permutation that then gives the leaf's value.
    """

    leaf: Node
    channels: Tensor
    sizes: list[int]
    dims: list[int]


def split_projections(gm: GraphModule) -> None:
    """Splits every projection whose output is only read in disjoint parts of its channels.

    The layout is found by following the element indices through the views, so `[3, heads, d]`
    (ViT, Swin, MobileViT), `heads x [q, k, v]` (EfficientFormer) and plain splits along the
    channels (MobileViTv2) need no code of their own. Parts are named `<path>[0]`, `<path>[1]`, ...
    """
    for node in calls(gm, *PROJECTIONS):
        found = weights(gm, node)
        leaves = _leaves(node)
        if found is None or not leaves or (node.target is CONV and node.args[6] != 1):
            continue
        parts = [_part(node, chain) for chain in leaves]
        if any(part is None for part in parts):
            continue
        ordered = sorted((p for p in parts if p is not None), key=lambda p: int(p.channels[0]))
        every = torch.cat([part.channels for part in ordered])
        if len(set(every.tolist())) != every.numel():
            continue
        for index, part in enumerate(ordered):
            _replace_part(gm, node, found, part, f"{path(node)}[{index}]")


def _leaves(node: Node, chain: tuple[Node, ...] = ()) -> list[tuple[Node, ...]]:
    """The view chains from a node to each slice or select; empty if anything else reads it."""
    found: list[tuple[Node, ...]] = []
    for user in node.users:
        if user.target in (SLICE, SELECT):
            found.append((*chain, user))
        elif user.target in BIJECTIVE_VIEWS and (deeper := _leaves(user, (*chain, user))):
            found.extend(deeper)
        else:
            return []
    return found


def _part(node: Node, chain: tuple[Node, ...]) -> Part | None:
    """What the chain keeps, or None if it does not keep whole channels in a regular layout."""
    sizes = list(shape(node))
    axis = 1 if node.target is CONV else len(sizes) - 1
    index = torch.arange(torch.Size(sizes).numel()).reshape(sizes)
    for view in chain:
        index = through(view, index)
    inner = torch.Size(sizes[axis + 1 :]).numel()
    channel = index // inner % sizes[axis]
    kept = torch.zeros(sizes[axis], dtype=torch.bool)
    kept[channel] = True
    channels = kept.nonzero().flatten()
    if index.numel() * sizes[axis] != channels.numel() * torch.Size(sizes).numel():
        return None
    # Positions in the part's own projection, whose channels are these, in ascending order.
    rank = kept.long().cumsum(0) - 1
    outer = index // (inner * sizes[axis])
    position = (outer * channels.numel() + rank[channel]) * inner
    layout = _as_reshape_permute(position + index % inner)
    return None if layout is None else Part(chain[-1], channels, *layout)


def _as_reshape_permute(position: Tensor) -> tuple[list[int], list[int]] | None:
    """Writes an index map as a reshape of a contiguous tensor followed by a permute.

    Args:
        position: for every output element the flat index in the input, a bijection.
    """
    sizes = list(position.shape)
    strides = [
        int(position.select(d, 1).flatten()[0] - position.flatten()[0]) if size > 1 else 0
        for d, size in enumerate(sizes)
    ]
    # Outermost first; dimensions of size 1 may stand anywhere and are put in front.
    order = sorted(range(len(sizes)), key=lambda d: (sizes[d] > 1, -strides[d]))
    dims = [order.index(d) for d in range(len(sizes))]
    reshaped = [sizes[d] for d in order]
    rebuilt = torch.arange(position.numel()).reshape(reshaped).permute(dims)
    return (reshaped, dims) if torch.equal(rebuilt, position) else None


def _replace_part(
    gm: GraphModule, node: Node, found: tuple[Tensor, Tensor | None], part: Part, name: str
) -> None:
    weight, bias = (None if v is None else v[part.channels] for v in found)
    assert callable(node.target) and weight is not None
    leaf = part.leaf
    new = call(gm, leaf, node.target, node.args[0], weight, bias, *node.args[3:], module_path=name)
    reshaped = call(gm, leaf, RESHAPE, new, part.sizes)
    replace(gm, leaf, call(gm, leaf, PERMUTE, reshaped, part.dims))
