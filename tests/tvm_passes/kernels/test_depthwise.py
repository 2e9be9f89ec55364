"""Depthwise and grouped ``conv2d``: bit for bit, and what they refuse."""

from functools import partial

import pytest

from tests.tvm_passes.product_calls import product_calls
from tests.tvm_passes.run_kernel import EVERY_ISA, Call, check_all
from tvm_passes.errors import LoweringError
from tvm_passes.kernels.isa import ISAS
from tvm_passes.kernels.registry import KERNELS
from tvm_passes.ops.base import TensorSpec
from tvm_passes.ops.gemm import Conv2dConfig

# height, width, channels, taps, strides, dilation, dtypes
DEPTHWISE = [
    (1, 1, 2, (1, 1), (1, 1), (1, 1), ("int8", "int8")),
    (3, 3, 16, (3, 3), (1, 1), (1, 1), ("int8", "int16")),
    (7, 9, 33, (3, 3), (2, 2), (1, 1), ("int8", "int8")),
    (6, 8, 7, (5, 5), (1, 1), (1, 1), ("int8", "int32")),
    (9, 7, 19, (3, 3), (1, 2), (2, 3), ("int16", "int8")),
    (2, 5, 40, (2, 1), (1, 1), (1, 1), ("uint8", "int8")),
    (5, 5, 31, (3, 3), (2, 1), (1, 1), ("int16", "int16")),
]

# height, width, channels, filters, groups, taps, strides, dilation, dtypes
GROUPED = [
    (1, 1, 6, 3, 3, (1, 1), (1, 1), (1, 1), ("int8", "int8")),
    (5, 6, 8, 6, 2, (3, 3), (1, 1), (1, 1), ("uint8", "int16")),
    (7, 7, 5, 10, 5, (3, 3), (2, 2), (1, 1), ("int8", "int8")),
    (6, 9, 9, 21, 3, (2, 3), (1, 2), (2, 1), ("int16", "int32")),
]


def depthwise() -> list[Call]:
    return [
        call
        for height, width, channels, taps, strides, dilation, dtypes in DEPTHWISE
        for call in product_calls(
            "conv2d",
            partial(Conv2dConfig, strides=strides, dilation=dilation, groups=channels),
            (1, height, width, channels),
            (channels, *taps, 1),
            dtypes,
        )
    ]


def grouped() -> list[Call]:
    return [
        call
        for height, width, channels, filters, groups, taps, strides, dilation, dtypes in GROUPED
        for call in product_calls(
            "conv2d",
            partial(Conv2dConfig, strides=strides, dilation=dilation, groups=groups),
            (1, height, width, channels),
            (filters, *taps, channels // groups),
            dtypes,
        )
    ]


@pytest.mark.parametrize("isa", EVERY_ISA)
@pytest.mark.parametrize("calls", [depthwise, grouped], ids=lambda calls: calls.__name__)
def test_convolutions_equal_their_references(calls, isa: str) -> None:
    check_all(calls(), isa)


@pytest.mark.parametrize(("groups", "filters"), [(4, 4), (2, 4)])
def test_a_bias_per_pixel_is_refused(groups: int, filters: int) -> None:
    config = Conv2dConfig(0, 0, -128, 127, "int8", (1, 1), (1, 1), groups, (0, 1), (0, 0))
    specs = [
        TensorSpec((1, 4, 4, 4), "int8"),
        TensorSpec((filters, 3, 3, 4 // groups), "int8"),
        TensorSpec((2, filters), "int32"),
        *[TensorSpec((filters,), "int32")] * 2,
    ]
    with pytest.raises(LoweringError, match="grouped convolution"):
        KERNELS["conv2d"](config, specs, ISAS["portable"])
