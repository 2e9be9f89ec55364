"""Averages against real arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.pooling import avg_pool2d_config, mean_config

mean = OPERATORS["mean"].reference
avg_pool2d = OPERATORS["avg_pool2d"].reference
HALF = 0.5 + 1e-4


def codes(seed: int, dtype: str, shape: tuple[int, ...]) -> NDArray[np.signedinteger]:
    low, high = INT_RANGE[dtype]
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(dtype)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["int8", "int16"]),
    st.sampled_from([(1,), (1, 2), (-1,), (0, 2), (1, 2, 3)]),
    st.booleans(),
    st.floats(1e-4, 3.0),
)
def test_mean_rounds_once(
    seed: int, dtype: str, axes: tuple[int, ...], keepdims: bool, ratio: float
) -> None:
    x = codes(seed, dtype, (2, 5, 7, 6))
    zero = 4 if dtype == "int8" else 0
    config = mean_config(
        ratio,
        zero,
        1.0,
        -3,
        -128,
        127,
        "int8",
        shape=x.shape,
        axes=axes,
        keepdims=keepdims,
        in_dtype=dtype,
    )
    exact = (x.astype(float) - zero).mean(axes, keepdims=keepdims) * ratio - 3
    got = mean(config, x)
    assert (
        got.shape
        == exact.shape
        == OPERATORS["mean"].infer(config, [TensorSpec(x.shape, dtype)]).shape
    )
    assert np.abs(got - np.clip(exact, -128, 127)).max() <= HALF


def test_sums_beyond_int32_are_taken_in_int64() -> None:
    x = np.full((1, 400, 400, 2), -32767, np.int16)
    config = mean_config(
        *(1.0, 0, 300.0, 0, -128, 127, "int8"),
        shape=x.shape,
        axes=(1, 2),
        keepdims=False,
        in_dtype="int16",
    )
    assert config.right > 0
    assert mean(config, x).tolist() == [[-109, -109]]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["int8", "int16"]),
    st.sampled_from([((3, 3), (1, 1), (1, 1)), ((2, 2), (2, 2), (0, 0)), ((5, 3), (2, 1), (2, 1))]),
    st.floats(1e-3, 3.0),
)
def test_avg_pool2d_leaves_the_padding_out(
    seed: int,
    dtype: str,
    geometry: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
    ratio: float,
) -> None:
    kernel, strides, padding = geometry
    x = codes(seed, dtype, (1, 8, 7, 3))
    zero = 4 if dtype == "int8" else 0
    config, multiplier = avg_pool2d_config(
        ratio, zero, 1.0, 1, -128, 127, "int8", kernel=kernel, strides=strides, padding=padding
    )
    got = avg_pool2d(config, x, multiplier)
    for row in range(got.shape[1]):
        for column in range(got.shape[2]):
            top, left = row * strides[0] - padding[0], column * strides[1] - padding[1]
            window = x[0, max(top, 0) : top + kernel[0], max(left, 0) : left + kernel[1]]
            exact = (window.astype(float) - zero).mean((0, 1)) * ratio + 1
            assert np.abs(got[0, row, column] - np.clip(exact, -128, 127)).max() <= HALF


def test_windows_in_the_padding_are_refused() -> None:
    with pytest.raises(LoweringError, match="padding"):
        avg_pool2d_config(
            1.0, 0, 1.0, 0, -128, 127, "int8", kernel=(2, 2), strides=(1, 1), padding=(2, 0)
        )
