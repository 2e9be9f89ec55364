"""Which attention head every channel of a tensor belongs to, found by following the views."""

from dataclasses import dataclass

import torch
from torch import fx

from pipeline.quant import walk
from pipeline.quant.channels import through_views


@dataclass(frozen=True)
class Heads:
    """Heads of the channels of a tensor.

    Attributes:
        axis: axis of the channels.
        head: head of every channel.
    """

    axis: int
    head: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of heads."""
        return max(self.head) + 1


def heads_of(node: fx.Node) -> Heads | None:
    """Heads of what a linear or convolution produces for matmuls; None where there are none.

    The heads are the last batch dimension of the matmul.
    """
    axis = channel_axis(node)
    readers = [r for r in walk.consumers(node) if r.target is walk.MATMUL]
    if axis is None or not readers:
        return None
    found = set()
    for reader in readers:
        for operand in walk.operands(reader):
            if walk.source(operand) is node:
                if (head := _head_by_channel(node, axis, operand)) is None:
                    return None
                found.add(head)
    return Heads(axis, found.pop()) if len(found) == 1 else None


def channel_axis(node: fx.Node) -> int | None:
    """Axis of the output channels of a linear or convolution; None for other operators."""
    if node.target is walk.LINEAR:
        return len(node.meta["val"].shape) - 1
    return 1 if node.target is walk.CONV else None


def _head_by_channel(node: fx.Node, axis: int, operand: fx.Node) -> tuple[int, ...] | None:
    shape = node.meta["val"].shape
    channels = torch.arange(shape[axis]).reshape(
        [-1 if i == axis else 1 for i in range(len(shape))]
    )
    seen = through_views(channels.expand(shape).contiguous(), node, operand)
    if seen.dim() < 3 or seen.shape[-3] == 1:
        return None
    head = torch.full((shape[axis],), -1)
    for index, channel in enumerate(seen.movedim(-3, 0)):
        mine = channel.unique()
        if (head[mine] >= 0).any():
            return None
        head[mine] = index
    return tuple(head.tolist()) if (head >= 0).all() else None
