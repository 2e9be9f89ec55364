"""``linear`` and dense ``conv2d``: bit for bit, and the packing of their weights."""

from functools import partial

import numpy as np
import pytest

from tests.tvm_passes.product_calls import product_calls
from tests.tvm_passes.run_kernel import (
    EVERY_ISA,
    HOST_ISAS,
    Call,
    Case,
    check_all,
    run_kernels,
)
from tvm_passes.kernels.dot import planes
from tvm_passes.kernels.epilogue import plan_epilogue
from tvm_passes.kernels.gemm import gemm_kernel, linear_access
from tvm_passes.kernels.gemm_tile import Access, default_schedule, pack_weights, schedules
from tvm_passes.kernels.isa import ISAS, Isa
from tvm_passes.ops.base import OPERATORS, TensorSpec
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
    ((1, 1), 9, 17, ("int16", "int16")),
    ((2, 11), 43, 37, ("int16", "int8")),
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
    (8, 9, 10, 19, (3, 2), (2, 1), (1, 2), ("int16", "int8")),
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


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("isa", EVERY_ISA)
def test_every_schedule_gives_the_same_result(isa: str, dtype: str) -> None:
    """A sample of the schedules of two odd shapes."""
    x, w = TensorSpec((1, 29, 21), dtype), TensorSpec((37, 21), "int8")
    calls = product_calls("linear", LinearConfig, x.shape, w.shape, (dtype, "int8"))
    access = linear_access((x, w))
    cases = []
    every = 17 if isa in HOST_ISAS else 41
    for schedule in list(schedules(access, 37, dtype, ISAS[isa]))[::every]:
        for _, config, arrays in calls:
            specs = [TensorSpec(array.shape, str(array.dtype)) for array in arrays]
            out = OPERATORS["linear"].infer(config, specs)
            plan = plan_epilogue((), specs, out)
            made = gemm_kernel(access, specs, config, plan, ISAS[isa], schedule)
            cases.append((Case(made, arrays, out), OPERATORS["linear"].reference(config, *arrays)))
    results = run_kernels([case for case, _ in cases], isa)
    for got, (_, expected) in zip(results, cases, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
def test_schedules_fit_the_registers_and_the_shape(isa: Isa, dtype: str) -> None:
    for columns in (1, 2, 7, 196, 1024):
        for channels in (1, 16, 17, 96, 1000):
            access = Access(1, columns, 0, 32, 1, 1, 0, 0, 32)
            found = list(schedules(access, channels, dtype, isa))
            assert found[0] == default_schedule(access, channels, dtype, isa)
            assert len(set(found)) == len(found)
            for schedule in found:
                codes = schedule.rows * planes(dtype, isa)
                assert codes * schedule.vectors + codes // 2 < isa.registers
                assert 1 <= schedule.rows <= columns


def test_weights_are_packed_by_panel_run_group_vector_and_lane() -> None:
    """Runs of six codes: the second group overlaps the first by two, whose weights are zero."""
    access = Access(1, 1, 0, 0, runs=2, inner_runs=1, inner_stride=0, run_stride=6, run_length=6)
    w = np.arange(6 * 12, dtype=np.int8).reshape(6, 12)
    packed = pack_weights(w, access, vectors=2, lanes=4, width=4).reshape(1, 2, 2, 2, 4, 4)
    _, run, group, vector, lane, k = np.indices(packed.shape)
    channel, position = vector * 4 + lane, group * 2 + k
    inside = (channel < 6) & ((group == 0) | (k >= 2))
    expected = w[np.where(inside, channel, 0), np.where(inside, run * 6 + position, 0)]
    np.testing.assert_array_equal(packed, np.where(inside, expected, 0))
