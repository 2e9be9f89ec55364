"""Depthwise and grouped ``conv2d``: bit for bit, and what they refuse."""

from functools import partial

import numpy as np
import pytest

from tests.tvm_passes.product_calls import product_calls
from tests.tvm_passes.run_kernel import EVERY_ISA, Call, Case, check_all, codes, run_kernels
from tvm_passes.errors import LoweringError
from tvm_passes.kernels.depthwise import depthwise_kernel
from tvm_passes.kernels.depthwise_tile import RowPlan, Term, Window, schedules
from tvm_passes.kernels.epilogue import plan_epilogue
from tvm_passes.kernels.gemm_tile import uses_dot
from tvm_passes.kernels.isa import ISAS, Isa
from tvm_passes.kernels.registry import KERNELS
from tvm_passes.kernels.windows import Axis
from tvm_passes.ops.add import add_config
from tvm_passes.ops.base import OPERATORS, TensorSpec, encode
from tvm_passes.ops.fused import FusedConfig, Step
from tvm_passes.ops.gemm import Conv2dConfig
from tvm_passes.ops.pad import PadConfig

# height, width, channels, taps, strides, dilation, dtypes
DEPTHWISE = [
    (1, 1, 2, (1, 1), (1, 1), (1, 1), ("int8", "int8")),
    (3, 3, 16, (3, 3), (1, 1), (1, 1), ("int8", "int16")),
    (7, 9, 33, (3, 3), (2, 2), (1, 1), ("int8", "int8")),
    (6, 8, 7, (5, 5), (1, 1), (1, 1), ("int8", "int32")),
    (9, 7, 19, (3, 3), (1, 2), (2, 3), ("int16", "int8")),
    (2, 5, 40, (2, 1), (1, 1), (1, 1), ("uint8", "int8")),
    (5, 5, 31, (3, 3), (2, 1), (1, 1), ("int16", "int16")),
    (9, 12, 24, (3, 3), (1, 1), (1, 1), ("int8", "int16")),
    (11, 13, 48, (5, 5), (2, 2), (1, 1), ("int8", "int8")),
    (9, 10, 20, (3, 3), (1, 1), (2, 2), ("int8", "int8")),
    (8, 9, 5, (7, 7), (1, 1), (1, 1), ("int8", "int16")),
    (5, 4, 16, (1, 3), (3, 3), (1, 1), ("uint8", "int16")),
]

# height, width, channels, outputs per channel, strides, dtypes
REPEATED = [
    (5, 6, 3, 2, (1, 1), ("int8", "int8")),
    (9, 9, 12, 6, (2, 2), ("int8", "int16")),
    (6, 7, 40, 4, (1, 1), ("int8", "int8")),
    (7, 5, 17, 3, (2, 2), ("int16", "int8")),
    (6, 6, 24, 3, (1, 1), ("uint8", "int8")),
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


def repeated() -> list[Call]:
    """Several outputs per channel, of fewer and of more channels than a register has."""
    return [
        call
        for height, width, channels, factor, strides, dtypes in REPEATED
        for call in product_calls(
            "conv2d",
            partial(Conv2dConfig, strides=strides, dilation=(1, 1), groups=factor * channels),
            (1, height, width, channels),
            (factor * channels, 3, 3, 1),
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


def fused(groups: int, filters: int) -> list[Call]:
    """A convolution, a residual sum and a pad."""
    calls = product_calls(
        "conv2d",
        partial(Conv2dConfig, strides=(1, 1), dilation=(1, 1), groups=groups),
        (1, 7, 9, 36),
        (filters, 3, 3, 36 // groups),
        ("int8", "int8"),
    )
    residual = codes("int8", 1, 5, 7, filters)
    add = add_config(0.02, 5, 0.03, -1, 0.04, 2, -128, 127, "int8", "int8", "int8")
    pad = PadConfig((1, 1), (1, 2), 2)
    result = []
    for _, config, arrays in calls:
        steps = (
            Step("conv2d", encode(config), (0, 1, 2, 3)),
            Step("add", encode(add), (5, 4)),
            Step("pad", encode(pad), (6,)),
        )
        result.append(("fused", FusedConfig(steps), [*arrays, residual]))
    return result


@pytest.mark.parametrize("isa", EVERY_ISA)
@pytest.mark.parametrize(("groups", "filters"), [(36, 36), (6, 18)])
def test_what_follows_joins_the_kernel(groups: int, filters: int, isa: str) -> None:
    check_all(fused(groups, filters), isa)


def scheduled(isa: Isa) -> list[Case]:
    """One call under many schedules."""
    (_, config, arrays), *_ = product_calls(
        "conv2d",
        partial(Conv2dConfig, strides=(1, 1), dilation=(1, 1), groups=37),
        (1, 7, 9, 37),
        (37, 3, 3, 1),
        ("int8", "int8"),
    )
    specs = [TensorSpec(array.shape, str(array.dtype)) for array in arrays]
    out = OPERATORS["conv2d"].infer(config, specs)
    window = Window(Axis(5, 3, 1), Axis(7, 3, 1), 37, 9)
    every = list(schedules(window, uses_dot("int8", isa), isa))
    return [
        Case(
            depthwise_kernel(config, specs, plan_epilogue((), specs, out), isa, schedule),
            arrays,
            out,
        )
        for schedule in every[:: max(1, len(every) // 9)]
    ]


@pytest.mark.parametrize("isa", ["avx512vnni", "neon-dotprod", "neon"])
def test_every_schedule_gives_the_same_codes(isa: str) -> None:
    cases = scheduled(ISAS[isa])
    first, *others = run_kernels(cases, isa)
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_neighbouring_rows_share_interleaved_input() -> None:
    plan = RowPlan(Window(Axis(8, 3, 1), Axis(8, 3, 1), 16, 10), 2)
    assert plan.groups == [[0, 1, 2, 3]]
    assert plan.terms == [Term(0, 0, (0, 1, 2, None)), Term(1, 0, (None, 0, 1, 2))]


@pytest.mark.parametrize("stride", [1, 2])
def test_packed_weights_of_a_tile_serve_a_lower_one(stride: int) -> None:
    window = Window(Axis(8, 5, stride), Axis(8, 5, stride), 16, 40)
    tall, low = RowPlan(window, 4).terms, RowPlan(window, 3).terms
    assert [term for term in tall if term.row < 3] == low


@pytest.mark.parametrize("isa", EVERY_ISA)
@pytest.mark.parametrize("calls", [depthwise, repeated, grouped], ids=lambda calls: calls.__name__)
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
