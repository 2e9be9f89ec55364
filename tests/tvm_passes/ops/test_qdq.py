"""What an imported module means: the float operators of quantized networks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_passes.ops.base import OPERATORS
from tvm_passes.ops.pointwise import FUNCTIONS
from tvm_passes.ops.qdq import (
    DequantizeConfig,
    DequantizeLogConfig,
    DequantizeTwinConfig,
    NormalizeConfig,
    PointwiseConfig,
    QuantizeConfig,
    QuantizeLogConfig,
    QuantizeTwinConfig,
)

(
    quantize,
    dequantize,
    quantize_log,
    dequantize_log,
    quantize_twin,
    dequantize_twin,
    normalize,
    pointwise,
) = (
    OPERATORS[name].reference
    for name in (
        "quantize",
        "dequantize",
        "quantize_log",
        "dequantize_log",
        "quantize_twin",
        "dequantize_twin",
        "normalize",
        "pointwise",
    )
)
scales = st.floats(1e-5, 1e3).map(np.float32)


def scalar(value: int) -> np.ndarray:
    return np.array(value, np.int32)


def test_quantize_rounds_half_up_and_clamps() -> None:
    config = QuantizeConfig(-8, 7, -1, "int8", "x")
    x = np.array([-9.0, -1.5, -0.5, 0.0, 0.5, 1.49, 1.5, 99.0], np.float32)
    codes = quantize(config, x, np.float32(1.0), scalar(-1))
    assert codes.tolist() == [-8, -2, -1, -1, 0, 0, 1, 7] and codes.dtype == np.int8


@given(scales, st.integers(-128, 127))
def test_codes_survive_a_round_trip(scale: np.float32, zero_point: int) -> None:
    codes = np.arange(-128, 128).astype(np.int8)
    config = QuantizeConfig(-128, 127, -1, "int8", "x")
    values = dequantize(DequantizeConfig(-1), codes, np.asarray(scale), scalar(zero_point))
    assert values.dtype == np.float32 and values[codes == zero_point] == 0
    again = quantize(config, values, np.asarray(scale), scalar(zero_point))
    np.testing.assert_array_equal(again, codes)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scales_along_an_axis(axis: int) -> None:
    x = np.random.default_rng(axis).normal(size=(2, 3, 4)).astype(np.float32)
    scale = np.linspace(0.01, 0.05, x.shape[axis], dtype=np.float32)
    zeros = np.arange(x.shape[axis], dtype=np.int32)
    codes = quantize(QuantizeConfig(-128, 127, axis, "int8", "x"), x, scale, zeros)
    back = dequantize(DequantizeConfig(axis), codes, scale, zeros)
    for index in range(x.shape[axis]):
        one = QuantizeConfig(-128, 127, -1, "int8", "x")
        part = x.take(index, axis)
        alone = quantize(one, part, scale[index], zeros[index])
        np.testing.assert_array_equal(codes.take(index, axis), alone)
        unclamped = np.abs(part) < 100 * scale[index]
        error = np.abs(back.take(index, axis) - part)[unclamped]
        assert error.max(initial=0) <= scale[index] * 0.51


@given(st.integers(1, 74), st.sampled_from([1, 2, 37]), st.integers(2, 8), scales)
def test_logarithmic_codes_survive_a_round_trip(
    q: int, r: int, bits: int, scale: np.float32
) -> None:
    codes = np.arange(2**bits).astype(np.uint8)
    values = dequantize_log(DequantizeLogConfig(q, r, bits, 0.0), codes, scale)
    assert values[-1] == 0 and np.isclose(values[0], scale)
    again = quantize_log(QuantizeLogConfig(q, r, bits, 0.0, "x"), values, scale)
    normal = values > 1e-37  # float32 keeps fewer bits below
    np.testing.assert_array_equal(again[normal], codes[normal])
    assert again[-1] == codes[-1]


def test_shifted_logarithmic_codes_represent_negative_values() -> None:
    quantized = QuantizeLogConfig(10, 37, 8, 0.17, "x")
    x = np.array([-0.17, -0.16, 0.0, 0.5], np.float32)
    codes = quantize_log(quantized, x, np.float32(1.0))
    back = dequantize_log(DequantizeLogConfig(10, 37, 8, 0.17), codes, np.float32(1.0))
    assert codes[0] == 255 and np.all(np.abs(back - x) <= 0.1 * (x + 0.17) + 1e-6)


@given(st.integers(0, 8), st.integers(2, 8), st.booleans(), scales)
def test_twin_codes_survive_a_round_trip(m: int, bits: int, signed: bool, scale: float) -> None:
    codes, half = np.arange(2**bits).astype(np.uint8), 2 ** (bits - 1)
    values = dequantize_twin(DequantizeTwinConfig(m, bits, signed), codes, scale)
    again = quantize_twin(QuantizeTwinConfig(m, bits, signed, "x"), values, scale)
    kept = codes > 0 if signed else (codes < half) | ((codes - half) << m >= half)
    kept &= codes != half  # the other zero
    np.testing.assert_array_equal(again[kept], codes[kept])
    assert not np.any(values[[0, half]]) and np.all(again[[0, half]] == 0)


def test_twin_codes_of_either_sign_and_of_probabilities() -> None:
    x = np.array([-9.0, -1.5, -0.4, 0.0, 1.9, 2.0, 3.4, 3.5, 20.0], np.float32)
    one = np.float32(1.0)
    signed = quantize_twin(QuantizeTwinConfig(2, 3, True, "x"), x, one)
    assert signed.tolist() == [7, 5, 4, 0, 0, 1, 1, 1, 3] and signed.dtype == np.uint8
    positive = quantize_twin(QuantizeTwinConfig(2, 3, False, "x"), x, one)
    assert positive.tolist() == [0, 0, 0, 0, 2, 2, 3, 5, 7]
    values = dequantize_twin(DequantizeTwinConfig(2, 3, False), positive, one)
    assert values.tolist() == [0, 0, 0, 0, 2, 2, 3, 4, 12] and values.dtype == np.float32


def test_normalize_over_trailing_axes() -> None:
    x = np.random.default_rng(0).normal(3.0, 5.0, (2, 3, 4, 5))
    y = normalize(NormalizeConfig(2, 1e-9), x)
    assert np.abs(y.mean((2, 3))).max() < 1e-12 and np.abs(y.std((2, 3)) - 1).max() < 1e-6
    flat = np.ones((1, 8))
    assert np.all(normalize(NormalizeConfig(1, 1e-5), flat) == 0)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_pointwise_functions_return_float32(function: str) -> None:
    x = np.linspace(-10, 10, 7, dtype=np.float32)
    y = pointwise(PointwiseConfig(function), x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, FUNCTIONS[function](x.astype(np.float64)), atol=1e-5)
