"""Channels of a tensor, and where the products that read it find each of them."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from pipeline.quant import walk


@dataclass(frozen=True)
class Reader:
    """A product with constant weights that reads a tensor, through views or directly.

    Attributes:
        product: the convolution or linear.
        channel: channel of every element of a weight's row, int64 `[G, K]` with `G` groups.
    """

    product: fx.Node
    channel: Tensor


@dataclass(frozen=True)
class Channels:
    """A tensor whose channels can be scaled one by one.

    Attributes:
        node: the producer.
        axis: axis of the channels.
        count: number of channels.
        readers: products that read it.
    """

    node: fx.Node
    axis: int
    count: int
    readers: tuple[Reader, ...]

    @property
    def can_shift(self) -> bool:
        """Whether no reader pads: what padding adds is zero, and would have to be shifted too."""
        convs = (r.product for r in self.readers if r.product.target is walk.CONV)
        return not any(any(walk.conv_window(conv).padding) for conv in convs)

    def shaped(self, values: Tensor) -> Tensor:
        """`[channels]`, shaped to broadcast against the tensor."""
        shape = [1] * len(self.node.meta["val"].shape)
        shape[self.axis] = -1
        return values.reshape(shape)


def channels_of(node: fx.Node) -> Channels | None:
    """The channels of a tensor; None unless weighted products read each of them on its own.

    Other readers do not matter: only what products read is going to be scaled.
    """
    readers = [r for r in walk.consumers(node) if r.target in walk.GEMMS]
    if not readers or any(r.target is walk.MATMUL for r in readers):
        return None
    for axis in _likely_axes(node, readers):
        found = [_reader(node, axis, r) for r in readers]
        if all(f is not None for f in found):
            count = int(node.meta["val"].shape[axis])
            return Channels(node, axis, count, tuple(f for f in found if f is not None))
    return None


def _likely_axes(node: fx.Node, readers: list[fx.Node]) -> list[int]:
    rank = len(node.meta["val"].shape)
    direct = {1 if r.target is walk.CONV else rank - 1 for r in readers if walk.input_of(r) is node}
    return list(direct) if len(direct) == 1 else [rank - 1, 1]


def _reader(node: fx.Node, axis: int, product: fx.Node) -> Reader | None:
    shape = node.meta["val"].shape
    ids = torch.arange(shape[axis])
    ids = ids.reshape([-1 if i == axis else 1 for i in range(len(shape))]).expand(shape)
    seen = through_views(ids.contiguous(), node, walk.input_of(product))
    seen = seen.movedim(1 if product.target is walk.CONV else -1, 0).flatten(1)
    if (seen != seen[:, :1]).any():
        return None
    inputs = seen[:, 0]
    if product.target is walk.LINEAR:
        return Reader(product, inputs.unsqueeze(0))
    return conv_reader(product, inputs)


def conv_reader(product: fx.Node, inputs: Tensor) -> Reader:
    """A convolution as reader of channels `[C]`, one for each of its input's."""
    weight = product.args[1]
    assert isinstance(weight, fx.Node)
    _, depth, *kernel = weight.meta["val"].shape
    groups = len(inputs) // depth
    return Reader(product, inputs.reshape(groups, depth).repeat_interleave(prod(kernel), dim=1))


def through_views(value: Tensor, producer: fx.Node, operand: fx.Node) -> Tensor:
    """What the views between a producer and an operand make of a tensor of the producer's shape."""
    chain = []
    while operand is not producer:
        chain.append(operand)
        operand = walk.input_of(operand)
    for view in reversed(chain):
        arguments: list[Any] = list(view.args[1:])
        assert callable(view.target)
        value = view.target(value, *arguments, **view.kwargs)
    return value
