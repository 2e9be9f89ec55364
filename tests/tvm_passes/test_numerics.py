"""The integer contract: fixed point, rounding, and the integer functions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_passes.numerics import (
    EXP2_BITS,
    LOG2_BITS,
    LOG2_WORD_BITS,
    FixedPoint,
    Rescale,
    bit_length,
    exp2_codes,
    exp2_negative,
    log2,
    log2_words,
    mulhi,
    reciprocal,
    reciprocal_sqrt,
    requantize,
    rescale,
    rounding_shift,
    saturate,
)

EXTREMES = [0, 1, -1, 2**31 - 1, -(2**31), 2**30, -(2**30), 2**30 - 1, 12345, -12345]
int32s = st.one_of(st.sampled_from(EXTREMES), st.integers(-(2**31), 2**31 - 1))
multipliers = st.one_of(
    st.sampled_from([2**30, 2**30 + 1, 2**31 - 1]), st.integers(2**30, 2**31 - 1)
)
shifts = st.integers(1, 31)
positives = st.one_of(
    st.integers(1, 2**62 - 1),
    st.integers(0, 61).map(lambda bits: 1 << bits),
    st.integers(1, 61).map(lambda bits: (1 << bits) - 1),
)


@given(int32s, multipliers, shifts)
def test_requantize_is_one_rounding_of_the_exact_product(acc: int, m: int, s: int) -> None:
    exact = (acc * m + (1 << (30 + s))) >> (31 + s)  # Python integers: no width
    assert int(requantize(acc, m, s)) == exact


@given(int32s, multipliers, shifts)
def test_requantize_equals_sqdmulh_then_srshl(acc: int, m: int, s: int) -> None:
    doubled = 2 * acc * m  # sqdmulh: saturating doubling multiply, high half
    high = max(min(doubled >> 32, 2**31 - 1), -(2**31))
    rounded = (high + (1 << (s - 1))) >> s  # srshl by -s, computed without overflow
    assert int(requantize(acc, m, s)) == rounded


@given(int32s, st.one_of(multipliers, st.integers(0, 2**31 - 1)))
def test_rescale_equals_sqrdmulh(acc: int, m: int) -> None:
    doubled = (2 * acc * m + (1 << 31)) >> 32  # saturating rounding doubling multiply, high half
    assert int(rescale(acc, m)) == doubled
    assert -(2**31) <= doubled < 2**31


@given(st.floats(0, 2.0**15 - 1), int32s)
def test_a_rescaled_accumulator_is_off_by_its_rounding_and_the_multipliers(
    real: float, acc: int
) -> None:
    form = Rescale.from_real(real)
    acc >>= form.left
    error = float(rescale(acc, form.multiplier, form.left)) - acc * real
    assert abs(error) <= 0.5 + abs(acc << form.left) * 2.0**-32 + 2.0**-20
    assert (form.left > 0) == (real >= 1)


def test_rescaling_channels_shares_the_pre_shift() -> None:
    form = Rescale.from_real([0.001, 3.7, 0.0, 1e-12])
    assert form.left == 2
    np.testing.assert_allclose(form.real(), [0.001, 3.7, 0.0, 0.0], atol=2.0**-30)
    nearly_one = Rescale.from_real(1.0 - 2.0**-40)
    assert (int(nearly_one.multiplier), nearly_one.left) == (2**31 - 1, 0)


@given(int32s, shifts)
def test_rounding_shift_needs_no_wider_type(value: int, s: int) -> None:
    narrow = (value >> s) + ((value >> (s - 1)) & 1)
    assert int(rounding_shift(value, s)) == narrow


@given(int32s, multipliers)
def test_mulhi_stays_in_int32(acc: int, m: int) -> None:
    assert -(2**31) <= int(mulhi(acc, m)) < 2**31


@given(st.floats(2.0**-31, 2.0**15 - 1))
def test_fixed_point_is_exact_to_31_bits(real: float) -> None:
    fixed = FixedPoint.from_real(real)
    assert 2**30 <= int(fixed.multiplier) < 2**31
    assert 1 <= int(fixed.shift) <= 31
    assert float(fixed.real()) == pytest.approx(real, rel=2.0**-31)
    assert (fixed.left > 0) == (float(fixed.real()) >= 0.5)


def test_fixed_point_renormalises_a_mantissa_that_rounds_to_one() -> None:
    fixed = FixedPoint.from_real(1.0 - 2.0**-40)
    assert (int(fixed.multiplier), float(fixed.real())) == (2**30, 1.0)


def test_fixed_point_of_channels_shares_the_pre_shift() -> None:
    fixed = FixedPoint.from_real([0.001, 3.7, 0.0, 1e-12])
    assert fixed.left == 3
    np.testing.assert_allclose(fixed.real(), [0.001, 3.7, 0.0, 0.0], rtol=2.0**-30)


@pytest.mark.parametrize("real", [-0.1, float("nan"), float("inf"), 2.0**15])
def test_multipliers_that_cannot_be_held_are_refused(real: float) -> None:
    for form in (FixedPoint, Rescale):
        with pytest.raises(ValueError, match="outside"):
            form.from_real(real)


def test_saturate_clamps_and_narrows() -> None:
    codes = saturate([-500, -128, 3, 127, 128], -128, 127, "int8")
    assert codes.dtype == np.int8
    assert codes.tolist() == [-128, -128, 3, 127, 127]


def test_exp2_negative_over_its_whole_range() -> None:
    exponent = np.arange(0, 33 << EXP2_BITS, 7)
    exact = 2.0 ** (30 - exponent / 2.0**EXP2_BITS)
    assert int(exp2_negative(0)) == 2**30
    assert np.all(np.abs(exp2_negative(exponent) - exact) <= exact * 3.4e-6 + 1.01)


@given(st.integers(31 << EXP2_BITS, 2**31 - 1))
def test_exp2_negative_vanishes_from_31_octaves_on(exponent: int) -> None:
    assert int(exp2_negative(exponent)) == 0


@given(positives)
def test_bit_length_is_pythons(value: int) -> None:
    assert int(bit_length(value)) == value.bit_length()


@given(positives)
def test_log2_is_close(value: int) -> None:
    assert int(log2(value)) / 2.0**LOG2_BITS == pytest.approx(np.log2(float(value)), abs=2.5e-6)


@given(st.integers(0, 61))
def test_log2_of_powers_of_two_is_exact(bits: int) -> None:
    assert int(log2(1 << bits)) == bits << LOG2_BITS


@given(st.one_of(st.integers(1, 2**31 - 1), st.integers(0, 30).map(lambda bits: 1 << bits)))
def test_log2_words_is_close(value: int) -> None:
    assert int(log2_words(value)) / 2.0**LOG2_WORD_BITS == pytest.approx(np.log2(value), abs=8e-5)


def test_log2_words_never_falls_and_is_exact_at_powers_of_two() -> None:
    octave = log2_words(np.arange(1 << 15, (1 << 16) + 1))  # every fraction
    assert (octave[0], octave[-1]) == (15 << LOG2_WORD_BITS, 16 << LOG2_WORD_BITS)
    assert np.all(np.diff(octave) >= 0)


@given(positives)
def test_reciprocal_is_close(value: int) -> None:
    multiplier, bits = (int(part) for part in reciprocal(value))
    assert 2**30 <= multiplier < 2**31
    assert multiplier * value / 2.0 ** (30 + bits) == pytest.approx(1.0, rel=2.0**-29)


@given(positives)
def test_reciprocal_sqrt_is_close(value: int) -> None:
    multiplier, half = (int(part) for part in reciprocal_sqrt(value))
    assert 2**30 <= multiplier < 2**31
    assert multiplier * float(value) ** 0.5 / 2.0 ** (30 + half) == pytest.approx(1.0, rel=2.0**-28)


def test_exp2_codes_follow_the_real_curve() -> None:
    exponent = np.arange(-(2**15), 1)
    codes, exact = exp2_codes(exponent), 32639 * 2.0 ** (exponent / 2**10)
    assert np.all(np.abs(codes - exact) <= 1.4e-4 * exact + 0.5)
    assert codes[-1] == codes.max() == 127 * 256 + 127  # two int8 planes
    assert codes[exponent <= -(2**14)].max() == 0
