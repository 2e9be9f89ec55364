"""Which sources windows share, and how blocks of channels cover them."""

import pytest

from tvm_passes.kernels.pooling import Band, bands
from tvm_passes.kernels.windows import Axis, block_lanes, block_starts, channel_lanes


def test_windows_load_what_the_ones_before_have_not() -> None:
    sliding, halving = Axis(8, 3, 1), Axis(8, 3, 2)
    assert (sliding.sources(2), sliding.shared(2)) == ([0, 1, 2, 3], [0, 1])
    assert (halving.sources(2), halving.shared(2)) == ([0, 1, 2, 3, 4], [0])


def test_dilated_windows_share_with_the_next_but_one() -> None:
    assert Axis(8, 3, 1, 2).shared(1) == []
    assert Axis(8, 3, 1, 2).shared(2) == [0, 1, 2, 3]


def test_the_last_block_of_channels_overlaps() -> None:
    assert block_starts(37, 16) == [0, 16, 21]
    assert block_starts(32, 16) == [0, 16]
    assert block_starts(7, 16) == [0]


@pytest.mark.parametrize(("channels", "lanes"), [(64, 32), (48, 16), (528, 32), (20, 8), (3, 8)])
def test_few_lanes_are_idle(channels: int, lanes: int) -> None:
    assert block_lanes(channels, 32, 8) == lanes


@pytest.mark.parametrize(
    ("channels", "lanes"), [(1, 1), (2, 1), (3, 1), (7, 4), (8, 8), (15, 8), (32, 16), (40, 8)]
)
def test_blocks_are_no_wider_than_the_channels(channels: int, lanes: int) -> None:
    assert channel_lanes(channels, 16) == lanes


def test_borders_have_bands_of_their_own() -> None:
    assert bands(6, 6, 3, 1, 1) == [
        Band(0, 0, Axis(1, 2, 1)),
        Band(1, 0, Axis(4, 3, 1)),
        Band(5, 4, Axis(1, 2, 1)),
    ]
    assert bands(3, 6, 2, 2, 0) == [Band(0, 0, Axis(3, 2, 2))]
