"""Kernels of averages and interpolation equal their references bit for bit."""

import pytest

import tvm_passes.kernels.mean
import tvm_passes.kernels.pooling
import tvm_passes.kernels.resize  # noqa: F401, registers the kernels
from tests.tvm_passes.run_kernel import ARM_ISAS, HOST_ISAS, Call, check_all, codes
from tvm_passes.ops.pooling import avg_pool2d_config, mean_config
from tvm_passes.ops.resize import resize_config

INT8 = (-128, 127, "int8")
MEANS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((1, 8, 8, 20), (1, 2)),
    ((2, 5, 33), (-1,)),
    ((1, 49, 37), (1,)),
    ((1, 3, 3, 65), (1, 2, 3)),
    ((1, 300, 300, 4), (1, 2)),  # int16 sums leave the int32 range
    ((2, 3, 5), (0, 2)),
]
POOLS = [  # shape, kernel, strides, padding
    ((1, 7, 9, 20), (3, 3), (1, 1), (1, 1)),
    ((2, 6, 6, 37), (2, 2), (2, 2), (0, 0)),
    ((1, 9, 9, 5), (5, 3), (2, 2), (2, 1)),
    ((1, 7, 7, 64), (7, 7), (1, 1), (0, 0)),
    ((1, 12, 11, 15), (3, 3), (1, 1), (1, 1)),
    ((1, 2, 1, 3), (3, 3), (1, 1), (1, 1)),
    ((2, 13, 12, 9), (10, 9), (1, 2), (2, 0)),
    ((1, 12, 12, 4), (12, 12), (1, 1), (0, 0)),
]
RESIZES: list[tuple[tuple[int, int, int, int], tuple[int, int]]] = [  # shape, output size
    ((1, 7, 7, 20), (14, 14)),
    ((2, 5, 4, 7), (9, 3)),
    ((1, 1, 1, 33), (3, 3)),
    ((1, 8, 8, 64), (1, 5)),
    ((2, 3, 4, 31), (12, 8)),
    ((1, 1, 5, 3), (2, 10)),
    ((1, 4, 4, 9), (12, 8)),
]


def calls(dtype: str) -> list[Call]:
    zero = 3 if dtype == "int8" else 0
    result: list[Call] = []
    for shape, axes in MEANS:
        for keepdims in (True, False):
            mean = mean_config(
                *(0.02, zero, 0.01, -7, *INT8),
                shape=shape,
                axes=axes,
                keepdims=keepdims,
                in_dtype=dtype,
            )
            result.append(("mean", mean, [codes(dtype, *shape)]))
    for shape, kernel, strides, padding in POOLS:
        for out_scale in (0.02, 0.001):  # the second needs a pre-shift
            pool, multiplier = avg_pool2d_config(
                *(0.02, zero, out_scale, 2, *INT8), kernel=kernel, strides=strides, padding=padding
            )
            result.append(("avg_pool2d", pool, [codes(dtype, *shape), multiplier]))
    for shape, size in RESIZES:
        for corners in (True, False):
            for out_scale in (0.015, 0.001):  # the second needs a pre-shift
                resize, *tables = resize_config(
                    *(0.02, zero, out_scale, 2, *INT8),
                    extents=shape[1:3],
                    size=size,
                    align_corners=corners,
                    in_dtype=dtype,
                )
                result.append(("resize_bilinear", resize, [codes(dtype, *shape), *tables]))
    return result


@pytest.mark.parametrize("isa", HOST_ISAS + ARM_ISAS)
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_kernels_equal_their_references(dtype: str, isa: str) -> None:
    check_all(calls(dtype), isa)
