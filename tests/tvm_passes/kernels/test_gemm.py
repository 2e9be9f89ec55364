"""``linear`` and dense ``conv2d``: bit for bit, and the packing of their weights."""

from functools import partial

import numpy as np
import pytest

from tests.tvm_passes.product_calls import product_calls
from tests.tvm_passes.run_kernel import EVERY_ISA, Call, check_all
from tvm_passes.kernels.gemm_tile import Access, default_tile, pack_weights
from tvm_passes.kernels.isa import ISAS
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig

# rows, depth, channels, dtypes: around the tile sizes, and far from any multiple
LINEAR = [
    ((1,), 1, 1, ("int8", "int8")),
    ((1, 1), 7, 3, ("uint8", "int16")),
    ((1, 1), 66, 1000, ("int8", "int32")),
    ((1, 5), 3, 16, ("int8", "int16")),
    ((1, 9), 4, 17, ("uint8", "int8")),
    ((2, 13), 31, 33, ("int8", "int8")),
    ((1, 23), 64, 65, ("int8", "int8")),
    ((1, 3, 6), 5, 31, ("int16", "int8")),
    ((17,), 130, 6, ("int16", "int32")),
    ((8,), 16, 48, ("uint8", "int32")),
]

# height, width, channels, filters, taps, strides, dilation, dtypes
DENSE = [
    (1, 1, 1, 1, (1, 1), (1, 1), (1, 1), ("int8", "int8")),
    (1, 1, 5, 33, (1, 1), (1, 1), (1, 1), ("int16", "int8")),
    (3, 3, 3, 7, (3, 3), (1, 1), (1, 1), ("int8", "int32")),
    (9, 11, 3, 17, (3, 3), (2, 2), (1, 1), ("uint8", "int8")),
    (6, 7, 9, 6, (1, 1), (2, 2), (1, 1), ("int8", "int16")),
    (5, 40, 4, 16, (3, 2), (1, 3), (1, 1), ("int8", "int8")),
    (9, 8, 5, 18, (3, 3), (1, 1), (2, 2), ("int8", "int8")),
    (8, 12, 6, 5, (2, 3), (2, 1), (1, 3), ("uint8", "int16")),
    (7, 5, 2, 35, (3, 3), (1, 1), (3, 1), ("int16", "int16")),
]


def linear() -> list[Call]:
    return [
        call
        for rows, depth, channels, dtypes in LINEAR
        for call in product_calls("linear", LinearConfig, (*rows, depth), (channels, depth), dtypes)
    ]


def dense() -> list[Call]:
    return [
        call
        for height, width, channels, filters, taps, strides, dilation, dtypes in DENSE
        for call in product_calls(
            "conv2d",
            partial(Conv2dConfig, strides=strides, dilation=dilation, groups=1),
            (1, height, width, channels),
            (filters, *taps, channels),
            dtypes,
        )
    ]


def border_classes() -> list[Call]:
    """Biases that differ at the borders, as those of a padded stem do."""
    rows, columns = (1, 0, 0, 2), (0, 1, 1, 1, 1, 2)
    geometry = {"strides": (2, 2), "dilation": (1, 1), "groups": 1}
    padded = partial(Conv2dConfig, **geometry, row_classes=rows, column_classes=columns)
    only_columns = partial(
        Conv2dConfig, **geometry, row_classes=(0,) * 4, column_classes=(0, 1, 0, 1, 0, 1)
    )
    return [
        *product_calls("conv2d", padded, (1, 9, 13, 3), (21, 3, 3, 3), ("uint8", "int8"), 9),
        *product_calls("conv2d", only_columns, (1, 9, 13, 3), (2, 3, 3, 3), ("int8", "int16"), 2),
    ]


@pytest.mark.parametrize("isa", EVERY_ISA)
@pytest.mark.parametrize("calls", [linear, dense, border_classes], ids=lambda calls: calls.__name__)
def test_products_equal_their_references(calls, isa: str) -> None:
    check_all(calls(), isa)


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
def test_a_tile_fits_the_registers(isa) -> None:
    for columns in (1, 2, 7, 196, 1024):
        for channels in (1, 16, 17, 96, 1000):
            tile = default_tile(columns, channels, isa)
            inputs = 1
            assert tile.rows * tile.vectors + tile.vectors + inputs <= isa.registers
            assert 1 <= tile.rows <= columns


def test_weights_are_packed_by_panel_run_group_vector_and_lane() -> None:
    access = Access(1, 1, 0, 0, runs=2, inner_runs=1, inner_stride=0, run_stride=5, run_length=5)
    w = np.arange(6 * 10, dtype=np.int8).reshape(6, 10)
    packed = pack_weights(w, access, vectors=2, lanes=4, depth=4).reshape(2, 2, 2, 4, 4)
    run, group, vector, lane, k = np.indices(packed.shape)
    channel, position = vector * 4 + lane, group * 4 + k
    inside = (channel < 6) & (position < 5)
    expected = w[np.where(inside, channel, 0), np.where(inside, run * 5 + position, 0)]
    np.testing.assert_array_equal(packed, np.where(inside, expected, 0))
