"""LayerNorm against its definition in double precision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.norm import LayerNormConfig, layer_norm_config

layer_norm = OPERATORS["layer_norm"].reference

FORMATS = {"int8": (0.04, -9, -128, 127), "int16": (12 / 32767, 0, -32767, 32767)}
TOLERANCE = {"int8": 0.51, "int16": 1.5}


def configure(scale: float, dtype: str, length: int, in_dtype: str) -> LayerNormConfig:
    out_scale, zero_point, qmin, qmax = FORMATS[dtype]
    return layer_norm_config(
        scale, 1e-5, out_scale, zero_point, qmin, qmax, dtype, length=length, in_dtype=in_dtype
    )


def expected(x: NDArray[np.signedinteger], scale: float, dtype: str) -> NDArray[np.float64]:
    out_scale, zero_point, qmin, qmax = FORMATS[dtype]
    real = x * scale
    centred = real - real.mean(-1, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return np.clip(y / out_scale + zero_point, qmin, qmax)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 7, 64, 192, 1000]),
    st.sampled_from([0.0, 0.3, 2.0, 30.0, 1000.0, 30000.0]),
    st.sampled_from([0.0, 100.0, -30000.0]),
    st.sampled_from(["int8", "int16"]),
    st.sampled_from(["int8", "int16"]),
    st.sampled_from([1e-5, 3e-3, 0.1]),
)
def test_against_float(
    seed: int, length: int, spread: float, centre: float, source: str, dtype: str, scale: float
) -> None:
    limits = np.iinfo(source)
    real = np.random.default_rng(seed).normal(centre, spread, (5, length))
    x = np.clip(np.round(real), limits.min, limits.max).astype(source)
    codes = layer_norm(configure(scale, dtype, length, source), x)
    assert np.abs(codes - expected(x, scale, dtype)).max() <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("source", ["int8", "int16"])
def test_constant_rows_give_the_zero_point(source: str, dtype: str) -> None:
    limits = np.iinfo(source)
    x = np.array([[limits.min] * 33, [0] * 33, [7] * 33, [limits.max] * 33], source)
    assert np.all(layer_norm(configure(1e-3, dtype, 33, source), x) == FORMATS[dtype][1])


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("source", ["int8", "int16"])
def test_long_rows_of_extremes_do_not_overflow(source: str, dtype: str) -> None:
    limits = np.iinfo(source)
    x = np.where(np.arange(100_000) % 2, limits.min, limits.max).astype(source)[None]
    codes = layer_norm(configure(0.01, dtype, x.size, source), x)
    assert np.abs(codes - expected(x, 0.01, dtype)).max() <= TOLERANCE[dtype]


def test_one_code_in_a_long_row_stands_out() -> None:
    # a deviation of 1/256 code: the mean, held to 2^-15 code, is then 6 output steps off
    x = np.zeros((1, 65_536), np.int16)
    x[0, 5] = 1
    codes = layer_norm(configure(0.5, "int16", x.size, "int16"), x)
    assert np.abs(codes - expected(x, 0.5, "int16")).max() <= 6
    assert codes[0, 5] == 32767


def test_rows_of_another_length_are_refused() -> None:
    operator = OPERATORS["layer_norm"]
    with pytest.raises(LoweringError, match="rows of 64"):
        operator.infer(configure(0.1, "int8", 64, "int8"), [TensorSpec((2, 65), "int8")])


def test_an_epsilon_beyond_the_range_is_refused() -> None:
    with pytest.raises(LoweringError, match="epsilon"):
        configure(1e-12, "int8", 64, "int8")
