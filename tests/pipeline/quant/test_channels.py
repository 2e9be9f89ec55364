"""Channels: which element of a weight's row belongs to which channel of the tensor in front."""

import pytest
import torch

from pipeline.quant import walk
from pipeline.quant.channels import channels_of, through_views

aten = torch.ops.aten


def test_a_linear_reads_the_last_axis(builder) -> None:
    x = builder.norm(builder.tokens(builder.stem()))
    first, second = (builder.linear(x, n) for n in (4, 6))
    builder.head(builder.call(aten.cat.default, [first, second], 2))
    channels = channels_of(x)
    assert channels is not None
    assert (channels.axis, channels.count) == (2, 8)
    assert [r.product for r in channels.readers] == [first, second]
    assert channels.readers[0].channel.tolist() == [list(range(8))]
    assert channels.shaped(torch.arange(8)).shape == (1, 1, 8)


def test_a_convolution_reads_every_channel_once_per_element_of_its_window(builder) -> None:
    x = builder.call(aten.relu.default, builder.stem(4))
    conv = builder.conv(x, 5, kernel=3, padding=1)
    builder.head(builder.tokens(conv))
    channels = channels_of(x)
    assert channels is not None and channels.axis == 1
    expected = [c for c in range(4) for _ in range(9)]
    assert channels.readers[0].channel.tolist() == [expected]


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_of_a_convolution_have_rows_of_their_own(builder, groups: int) -> None:
    x = builder.call(aten.relu.default, builder.stem(4))
    weight = builder.random_constant(4, 4 // groups, 2, 2)
    conv = builder.call(aten.conv2d.default, x, weight, None, [1, 1], [0, 0], [1, 1], groups)
    builder.head(builder.tokens(conv))
    channels = channels_of(x)
    assert channels is not None
    found = channels.readers[0].channel
    assert found.shape == (groups, 4 // groups * 4)
    assert found[1].unique().tolist() == list(range(4 // groups, 8 // groups))


def test_views_are_followed(builder) -> None:
    x = builder.call(aten.relu.default, builder.stem(6))
    linear = builder.linear(builder.tokens(x), 4)  # [1, 6, 8, 8] read as [1, 64, 6]
    part = builder.linear(
        builder.call(aten.slice.Tensor, builder.tokens(x), 2, 1, 5), 4
    )  # channels 1 to 4
    builder.head(builder.call(aten.add.Tensor, linear, part))
    channels = channels_of(x)
    assert channels is not None and channels.axis == 1
    assert [r.channel.tolist() for r in channels.readers] == [[[*range(6)]], [[1, 2, 3, 4]]]


def test_a_view_that_spreads_channels_over_axes_interleaves_them(builder) -> None:
    x = builder.call(aten.relu.default, builder.stem(4))
    windows = builder.call(aten.reshape.default, x, [1, 4, 16, 4])
    windows = builder.call(aten.permute.default, windows, [0, 2, 1, 3])
    rows = builder.call(aten.reshape.default, windows, [1, 16, 16])
    builder.head(builder.linear(rows, 3))
    channels = channels_of(x)
    assert channels is not None and channels.axis == 1
    assert channels.readers[0].channel.tolist() == [[c for c in range(4) for _ in range(4)]]


def test_channels_that_a_product_mixes_are_none(builder) -> None:
    x = builder.call(aten.relu.default, builder.stem(8))
    over_channels = builder.linear(builder.tokens(x), 3)
    over_positions = builder.linear(builder.call(aten.reshape.default, x, [1, 8, 64]), 3)
    builder.head(builder.call(aten.cat.default, [over_channels, over_positions], 1))
    assert channels_of(x) is None


def test_operands_of_matmuls_have_no_channels(vit) -> None:
    for node in vit.graph.nodes:
        if any(r.target is walk.MATMUL for r in walk.consumers(node)):
            assert channels_of(node) is None


def test_a_tensor_that_no_product_reads_has_no_channels(builder) -> None:
    x = builder.stem()
    builder.head(builder.tokens(builder.call(aten.relu.default, x)))
    assert channels_of(x) is None


def test_values_go_through_the_views_between_two_nodes(builder) -> None:
    x = builder.stem(4)
    seen = builder.call(aten.slice.Tensor, builder.tokens(x), 1, 0, 3)
    value = torch.randn(1, 4, 8, 8)
    expected = value.flatten(2).mT[:, :3]
    assert torch.equal(through_views(value, x, seen), expected)
    assert torch.equal(through_views(value, x, x), value)
