"""Softmax against its definition in double precision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.ops.base import OPERATORS
from tvm_passes.ops.softmax import (
    adalog_softmax_config,
    softmax_config,
    uniform_softmax_config,
)

softmax = OPERATORS["softmax"].reference
Float = NDArray[np.float64]

seeds = st.integers(0, 2**32 - 1)
lengths = st.sampled_from([1, 2, 3, 10, 49, 197, 1024])
spreads = st.sampled_from([0.0, 0.1, 1.0, 4.0, 20.0])
# numerator and denominator of the base's exponent: AdaLog's, log2 and log-sqrt2
bases = st.one_of(st.tuples(st.integers(10, 137), st.just(37)), st.sampled_from([(1, 1), (1, 2)]))
scales = st.sampled_from([3e-9, 1e-5, 7.3e-4, 0.013, 0.4, 1.2])


def exact(logits: Float) -> Float:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def draw(seed: int, length: int, spread: float, scale: float) -> NDArray[np.int32]:
    real = np.random.default_rng(seed).normal(size=(4, length)) * spread
    return np.clip(np.round(real / scale), -(2**31), 2**31 - 1).astype(np.int32)


@given(seeds, lengths, spreads, scales)
def test_int16_probabilities(seed: int, length: int, spread: float, scale: float) -> None:
    x = draw(seed, length, spread, scale)
    codes = softmax(softmax_config(scale), x)
    assert codes.dtype == np.int16
    expected = np.minimum(exact(x * scale) * 2.0**15, 32767)
    assert np.abs(codes - expected).max() <= 0.9


@given(seeds, lengths, spreads, scales)
def test_int8_probabilities(seed: int, length: int, spread: float, scale: float) -> None:
    x = draw(seed, length, spread, scale)
    codes = softmax(softmax_config(scale, "int8"), x)
    expected = np.minimum(exact(x * scale) * 256, 255) - 128
    assert np.abs(codes - expected).max() <= 0.51


steps = st.one_of(st.sampled_from([1.0, 1 / 15, 1 / 255, 2.0**-15]), st.floats(2.0**-15, 1.0))


@given(seeds, lengths, spreads, scales, steps, st.integers(-128, 126), st.integers(1, 255))
def test_uniform_codes_differ_only_next_to_a_boundary_and_by_one(
    seed: int, length: int, spread: float, scale: float, step: float, zero_point: int, codes: int
) -> None:
    x = draw(seed, length, spread, scale)
    qmax = min(zero_point + codes, 127)
    got = softmax(uniform_softmax_config(scale, step, zero_point, qmax, "int8"), x).astype(int)
    real = exact(x * scale) / step
    expected = np.minimum(np.floor(real + 0.5) + zero_point, qmax)
    # exponents are rounded to 2^-15 octaves, and so are not exact themselves
    boundary = np.abs(real - np.floor(real) - 0.5) <= 1e-6 + 5e-5 * real
    assert np.all((got == expected) | boundary)
    assert np.all(np.abs(got - expected) <= np.ceil(5e-5 * real))


@pytest.mark.parametrize(
    ("step", "zero_point", "qmax", "dtype"),
    [
        *((2.0**-16, 0, 127, "int8"), (1.1, 0, 127, "int8"), (float("nan"), 0, 127, "int8")),
        *((0.1, 0, 128, "int8"), (0.1, -129, 0, "int8"), (0.1, 5, 5, "int8")),
        (0.1, 0, 127, "uint8"),
    ],
)
def test_formats_out_of_range_are_refused(
    step: float, zero_point: int, qmax: int, dtype: str
) -> None:
    with pytest.raises(LoweringError, match="softmax to"):
        uniform_softmax_config(0.01, step, zero_point, qmax, dtype)


@given(seeds, lengths, spreads, scales, bases, st.integers(2, 8), st.floats(0.3, 1.5))
def test_adalog_codes_differ_only_at_rounding_boundaries(
    seed: int,
    length: int,
    spread: float,
    scale: float,
    base: tuple[int, int],
    bits: int,
    top: float,
) -> None:
    q, r = base
    x = draw(seed, length, spread, scale)
    codes = softmax(adalog_softmax_config(scale, q, r, bits, top), x).astype(np.int64)
    distance = (x.max(-1, keepdims=True) - x.astype(np.int64)) * scale
    total = np.exp(-distance).sum(-1, keepdims=True)
    real = ((distance + np.log(total)) / np.log(2) + np.log2(top)) * r / q
    expected = np.clip(np.floor(real + 0.5), 0, 2**bits - 1)
    wrong = codes != expected
    assert np.abs(codes - expected).max() <= 1
    boundary = np.abs(real + 0.5 - np.round(real + 0.5))
    assert np.all(boundary[wrong] <= 3e-4 * r / q)


def test_one_peak_over_a_long_row_keeps_its_mass() -> None:
    x = np.full((1, 12544), -(9 << 16), np.int32)
    x[0, 77] = 0
    codes = softmax(softmax_config(2.0**-16), x).astype(np.int64)
    expected = exact(x * 2.0**-16) * 2.0**15
    assert np.abs(codes - expected).max() <= 1.5
    assert expected[0, 77] < 15000  # 12,543 small keys hold more than half


def test_equal_logits_share_evenly() -> None:
    for length in (1, 2, 5, 512, 12544):
        x = np.full((1, length), -(2**31), np.int32)
        codes = softmax(softmax_config(0.01), x)
        assert np.all(codes == min(int(32768 / length + 0.5), 32767))


def test_the_whole_int32_range_saturates() -> None:
    x = np.array([[2**31 - 1, -(2**31), 0, 2**31 - 1]], np.int32)
    assert softmax(softmax_config(0.01), x).tolist() == [[16384, 0, 0, 16384]]
    assert softmax(softmax_config(0.01, "int8"), x).tolist() == [[0, -128, -128, 0]]
    assert softmax(adalog_softmax_config(0.01, 1, 1, 4), x).tolist() == [[1, 15, 15, 1]]


def test_masked_keys_vanish_and_bias_saturates() -> None:
    x = np.array([[5, 5, -(2**31)]], np.int32)
    mask = np.array([[0, -(2**24), -(2**31)]], np.int32)
    assert softmax(softmax_config(0.01), x, mask).tolist() == [[32767, 0, 0]]


def test_bias_is_added_to_the_logits() -> None:
    x = np.arange(24, dtype=np.int32).reshape(1, 2, 3, 4) * 100
    bias = np.array([[[[0, 300, -50, 7]]]], np.int32)
    expected = softmax(softmax_config(0.001), (x + bias).astype(np.int32))
    np.testing.assert_array_equal(softmax(softmax_config(0.001), x, bias), expected)


def test_int16_logits_are_taken_as_they_are() -> None:
    x = np.array([[32767, -32768, 32000]], np.int16)
    expected = softmax(softmax_config(1e-3), x.astype(np.int32))
    np.testing.assert_array_equal(softmax(softmax_config(1e-3), x), expected)


def test_fewer_bits_use_fewer_codes() -> None:
    x = np.array([[0, 0, 0, 0], [900, 0, 0, 0]], np.int32)
    codes = softmax(softmax_config(0.01, "int8", bits=4), x)
    assert codes.tolist() == [[-124] * 4, [-113, -128, -128, -128]]


@pytest.mark.parametrize("scale", [-1.0, 1.5, float("nan")])
def test_scales_out_of_range_are_refused(scale: float) -> None:
    with pytest.raises(LoweringError, match="scale"):
        softmax_config(scale)
