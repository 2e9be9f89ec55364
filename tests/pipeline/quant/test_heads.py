"""Heads: which channels of q, k and v belong to which head, by the views alone."""

import torch
from torch import fx

from pipeline.quant.heads import heads_of

aten = torch.ops.aten


def split(builder, x: fx.Node, heads: int = 2) -> fx.Node:
    """`[1, N, C]` as `[1, heads, N, C / heads]`."""
    _, count, channels = x.meta["val"].shape
    x = builder.call(aten.reshape.default, x, [1, count, heads, channels // heads])
    return builder.call(aten.permute.default, x, [0, 2, 1, 3])


def attend(builder, q: fx.Node, k: fx.Node) -> fx.Node:
    turned = builder.call(aten.permute.default, k, [0, 1, 3, 2])
    return builder.call(aten.matmul.default, q, turned)


def test_channels_of_a_linear_lie_head_by_head(builder) -> None:
    x = builder.tokens(builder.stem())
    q, k = builder.linear(x, 8), builder.linear(x, 8)
    attend(builder, split(builder, q), split(builder, k))
    for node in (q, k):
        found = heads_of(node)
        assert found is not None
        assert (found.axis, found.count) == (2, 2)
        assert found.head == (0, 0, 0, 0, 1, 1, 1, 1)


def test_a_convolution_has_its_channels_in_front(builder) -> None:
    x = builder.stem()
    q = builder.conv(x, 8)
    heads = builder.call(aten.reshape.default, q, [1, 4, 2, 64])
    builder.call(
        aten.matmul.default, builder.call(aten.permute.default, heads, [0, 1, 3, 2]), heads
    )
    found = heads_of(q)
    assert found is not None
    assert (found.axis, found.head) == (1, (0, 0, 1, 1, 2, 2, 3, 3))


def test_channels_may_alternate_between_heads(builder) -> None:
    q = builder.linear(builder.tokens(builder.stem()), 8)
    mixed = builder.call(aten.reshape.default, q, [1, 64, 4, 2])
    mixed = builder.call(aten.permute.default, mixed, [0, 3, 1, 2])
    attend(builder, mixed, mixed)
    found = heads_of(q)
    assert found is not None and found.head == (0, 1) * 4


def test_one_linear_for_q_k_and_v_repeats_its_heads(builder) -> None:
    qkv = builder.linear(builder.tokens(builder.stem()), 24)
    views = builder.call(aten.reshape.default, qkv, [1, 64, 3, 2, 4])
    views = builder.call(aten.permute.default, views, [2, 0, 3, 1, 4])
    q, k = (builder.call(aten.select.int, views, 0, i) for i in range(2))
    attend(builder, q, k)
    # Each operand shows only its own channels: they are no heads of the whole tensor.
    assert heads_of(qkv) is None


def test_tensors_without_heads(builder) -> None:
    x = builder.tokens(builder.stem())
    alone, other, read = builder.linear(x, 8), builder.linear(x, 8), builder.linear(x, 8)
    builder.call(aten.matmul.default, alone, builder.call(aten.permute.default, other, [0, 2, 1]))
    assert heads_of(alone) is None  # a matmul without heads
    builder.linear(read, 4)
    assert heads_of(read) is None  # no matmul
    assert heads_of(builder.norm(x)) is None  # no channels


def test_readers_that_disagree_leave_no_heads(builder) -> None:
    x = builder.tokens(builder.stem())
    q = builder.linear(x, 8)
    for heads in (2, 4):
        attend(builder, split(builder, q, heads), split(builder, builder.linear(x, 8), heads))
    assert heads_of(q) is None
