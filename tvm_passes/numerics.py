"""The integer contract: the one definition of fixed-point arithmetic, on NumPy int64.

Every operator's reference is written with these functions, and every kernel must agree with them
bit for bit on every target. There is one rounding rule, round half up, and two forms of a positive
real multiplier. Products and changes of format, whose accumulators are far from filling an int32,
need a ``Rescale``, which is one multiplication::

    real = 2**left * multiplier / 2**31,    0 <= multiplier < 2**31
    rescale(acc) = floor(((acc << left) * multiplier + 2**30) / 2**31)

The rounded multiplier moves the result by at most ``abs(acc << left) / 2**32``. Where accumulators
fill an int32 (sums over whole maps, interpolations, logarithms), ``FixedPoint`` has a normalised
multiplier and a shift::

    real = 2**left * multiplier / 2**(31 + shift),    2**30 <= multiplier < 2**31, 1 <= shift <= 31
    requantize(acc) = floor(((acc << left) * multiplier + 2**(30 + shift)) / 2**(31 + shift))

On NEON the first is ``sqrdmulh``, the second ``sqdmulh`` followed by ``srshl`` (a floor nested in a
rounding shift is exact); on x86 both are a 64-bit multiply, add and shift.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int64 = NDArray[np.int64]

INT_RANGE = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 1),
}


@dataclass(frozen=True)
class Rescale:
    """Positive real multipliers (scalar or one per channel) for ``rescale``.

    Attributes:
        multiplier: int32 values in [0, 2^31).
        left: the static pre-shift, above 0 only where a real multiplier is 1 or above.
    """

    multiplier: NDArray[np.int32]
    left: int

    @classmethod
    def from_real(cls, real: ArrayLike) -> "Rescale":
        """Nearest form of ``real``, with the least pre-shift that all of its values allow.

        Raises:
            ValueError: a value is negative, not finite, or 2^15 and above.
        """
        value = _checked(real)
        left = max(int(np.frexp(value.max(initial=0.0))[1]), 0)
        multiplier = np.floor(value * 2.0 ** (31 - left) + 0.5)
        return cls(np.minimum(multiplier, 2**31 - 1).astype(np.int32), left)

    def real(self) -> NDArray[np.float64]:
        """The real multipliers that this form stands for."""
        return self.multiplier.astype(np.float64) * 2.0 ** (self.left - 31)


@dataclass(frozen=True)
class FixedPoint:
    """Positive real multipliers (scalar or one per channel) for ``requantize``.

    Attributes:
        multiplier: int32 values in [2^30, 2^31), or 0 for an exact zero.
        shift: int32 values in [1, 31].
        left: the static pre-shift, above 0 only for real multipliers of 0.5 and above.
    """

    multiplier: NDArray[np.int32]
    shift: NDArray[np.int32]
    left: int

    @classmethod
    def from_real(cls, real: ArrayLike) -> "FixedPoint":
        """Nearest fixed-point form of ``real``; a value that needs a shift above 31 becomes zero.

        The pre-shift is common to all channels: the largest that any of them needs.

        Raises:
            ValueError: a value is negative, not finite, or 2^15 and above.
        """
        value = _checked(real)
        mantissa, exponent = np.frexp(value)  # value = mantissa * 2^exponent, mantissa in [0.5, 1)
        multiplier = np.floor(mantissa * 2.0**31 + 0.5).astype(np.int64)
        overflow = multiplier == 2**31  # a mantissa that rounds up to 1 renormalises
        multiplier = np.where(overflow, 2**30, multiplier)
        exponent = exponent + overflow
        exponent = np.where(value == 0, -64, exponent)
        left = max(int(exponent.max(initial=-64)) + 1, 0)  # shift = left - exponent is at least 1
        shift = left - exponent
        vanishes = shift > 31
        return cls(
            np.where(vanishes, 0, multiplier).astype(np.int32),
            np.where(vanishes, 1, shift).astype(np.int32),
            left,
        )

    def real(self) -> NDArray[np.float64]:
        """The real multipliers that this form stands for."""
        scale = 2.0 ** (self.left - 31.0 - self.shift)
        return self.multiplier.astype(np.float64) * scale


def _checked(real: ArrayLike) -> NDArray[np.float64]:
    value = np.asarray(real, np.float64)
    if not np.all(np.isfinite(value)) or np.any(value < 0) or np.any(value >= 2.0**15):
        raise ValueError(f"multiplier outside [0, 2^15): {value.min()} .. {value.max()}")
    return value


def mulhi(acc: ArrayLike, multiplier: ArrayLike) -> Int64:
    """``floor(acc * multiplier / 2^31)``: int32 operands, int32 result (NEON ``sqdmulh``)."""
    return (np.asarray(acc, np.int64) * np.asarray(multiplier, np.int64)) >> 31


def mulhrs(a: ArrayLike, b: ArrayLike) -> Int64:
    """``(a * b + 2^14) >> 15`` of int16 operands that are not both -2^15: an int16 again.

    NEON ``sqrdmulh``, x86 ``vpmulhrsw``.
    """
    return (np.asarray(a, np.int64) * np.asarray(b, np.int64) + (1 << 14)) >> 15


def rescale_words(x: ArrayLike, multiplier: ArrayLike, left: int, shift: int) -> Int64:
    """``x * 2^left * multiplier / 2^(15 + shift)`` of int16, rounded to int16, then by a shift.

    The first rounding moves the result by at most ``2^-(shift + 1)``. ``x << left`` saturates.

    Args:
        x: int16 values.
        multiplier: below 2^15, broadcast against ``x``.
        left: static pre-shift.
        shift: fraction bits between the roundings, at least 1.
    """
    reach = np.clip(np.asarray(x, np.int64) << left, *INT_RANGE["int16"])
    return rounding_shift(mulhrs(reach, multiplier), shift)


def rounding_shift(value: ArrayLike, shift: ArrayLike) -> Int64:
    """``floor((value + 2^(shift-1)) / 2^shift)`` for shift >= 1 (NEON ``srshl``)."""
    wide, amount = np.asarray(value, np.int64), np.asarray(shift, np.int64)
    return (wide + (np.int64(1) << (amount - 1))) >> amount


def rescale(acc: ArrayLike, multiplier: ArrayLike, left: int = 0) -> Int64:
    """Scale int32 accumulators by one multiplication, rounding half up (NEON ``sqrdmulh``).

    Args:
        acc: int32 accumulators; ``acc << left`` must fit int32 (the lowering proves it).
        multiplier: ``Rescale.multiplier``, broadcast against ``acc``.
        left: ``Rescale.left``.
    """
    wide = np.asarray(acc, np.int64) << left
    return (wide * np.asarray(multiplier, np.int64) + (1 << 30)) >> 31


def requantize(acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, left: int = 0) -> Int64:
    """Scale int32 accumulators by a fixed-point multiplier, rounding half up.

    Args:
        acc: int32 accumulators; ``acc << left`` must fit int32 (the lowering proves it).
        multiplier: ``FixedPoint.multiplier``, broadcast against ``acc``.
        shift: ``FixedPoint.shift``.
        left: ``FixedPoint.left``.
    """
    wide = np.asarray(acc, np.int64) << left
    return rounding_shift(mulhi(wide, multiplier), shift)


def saturate(value: ArrayLike, qmin: int, qmax: int, dtype: str) -> NDArray[np.signedinteger]:
    """Clamp to ``[qmin, qmax]`` and convert to ``dtype``."""
    result: NDArray[np.signedinteger] = np.clip(np.asarray(value, np.int64), qmin, qmax).astype(
        dtype
    )
    return result


# Coefficients in Q30, constant term first: minimax fits with exact end points.
EXP2_BITS = 14
EXP2_COEFFICIENTS = (1073741824, -744162670, 257058255, -57043344, 7276848)
LOG2_BITS = 24
LOG2_COEFFICIENTS = (1548921864, -771114582, 491330719, -298456862, 130815037, -27754353)
RSQRT_LINE = (2290047120, -1308598350)
RSQRT_STEPS = 4


def polynomial(coefficients: tuple[int, ...], fraction: ArrayLike) -> Int64:
    """Horner's rule on Q30 coefficients (constant term first) and a Q31 argument in [0, 1)."""
    value = np.full(np.shape(fraction), coefficients[-1], np.int64)
    for coefficient in reversed(coefficients[:-1]):
        value = coefficient + mulhi(value, fraction)
    return value


def exp2_negative(exponent: ArrayLike) -> Int64:
    """``2^(-exponent / 2^14)`` in Q30; relative error below 3.4e-6 plus one unit of 2^-30.

    Args:
        exponent: int32 values >= 0 with ``EXP2_BITS`` fraction bits. 0 gives exactly 2^30, and
            anything from 31 on gives 0.
    """
    wide = np.asarray(exponent, np.int64)
    fraction = (wide & ((1 << EXP2_BITS) - 1)) << (31 - EXP2_BITS)
    return polynomial(EXP2_COEFFICIENTS, fraction) >> np.minimum(wide >> EXP2_BITS, 31)


def bit_length(value: ArrayLike) -> Int64:
    """Number of bits of positive integers: ``2^(n-1) <= value < 2^n``."""
    rest = np.array(value, np.int64)
    length = np.ones(rest.shape, np.int64)
    for step in (32, 16, 8, 4, 2, 1):
        large = rest >= (1 << step)
        length += np.where(large, step, 0)
        rest = np.where(large, rest >> step, rest)
    return length


def log2(value: ArrayLike) -> Int64:
    """Base-2 logarithm of integers in [1, 2^62) in Q24; absolute error below 2.4e-6."""
    wide = np.asarray(value, np.int64)
    length = bit_length(wide)
    fraction = ((wide << (63 - length)) >> 31) & 0x7FFFFFFF  # below the leading one, in Q31
    curve = mulhi(polynomial(LOG2_COEFFICIENTS, fraction), fraction)
    return ((length - 1) << LOG2_BITS) + (curve >> (30 - LOG2_BITS))


# log2(1 + f) = f + f (1 - f) h(f): h for f in Q15, a minimax fit of the whole.
LOG2_WORD_BITS = 15
LOG2_WORD_COEFFICIENTS = (14481, -8755, 4864, -1479)


def log2_words(value: ArrayLike) -> Int64:
    """Base-2 logarithm of integers in [1, 2^31) in Q15; absolute error below 8e-5.

    All but the number of whole octaves is arithmetic on 16 bits.
    """
    wide = np.asarray(value, np.int64)
    length = bit_length(wide)
    fraction = ((wide << (32 - length)) >> 16) & 0x7FFF  # below the leading one
    curve = np.full(fraction.shape, LOG2_WORD_COEFFICIENTS[-1], np.int64)
    for coefficient in LOG2_WORD_COEFFICIENTS[-2::-1]:
        curve = coefficient + mulhrs(curve, fraction)
    bow = mulhrs(fraction, 0x7FFF - fraction)
    return ((length - 1) << LOG2_WORD_BITS) + fraction + mulhrs(bow, curve)


def reciprocal(value: ArrayLike) -> tuple[Int64, Int64]:
    """``1 / value = multiplier / 2^(30 + bits)`` of integers in [1, 2^62), to 2^-30 relative.

    Returns:
        The multiplier in [2^30, 2^31) and ``bits``, the bit length of ``value``.
    """
    wide = np.asarray(value, np.int64)
    bits = bit_length(wide)
    divisor = (wide << (63 - bits)) >> 31  # in [2^31, 2^32)
    return np.minimum((1 << 62) // divisor, 2**31 - 1), bits


def reciprocal_sqrt(value: ArrayLike) -> tuple[Int64, Int64]:
    """``1 / sqrt(value) = multiplier / 2^(30 + half)`` of integers in [1, 2^62), to 2^-28 relative.

    The value is normalised to v in [1/4, 1) by an even shift; a line starts Newton's iteration
    ``y = y * (3 - v * y^2) / 2``.

    Returns:
        The multiplier in [2^30, 2^31) and ``half``, half of that even shift.
    """
    wide = np.asarray(value, np.int64)
    half = (bit_length(wide) + 1) >> 1
    v = (wide << (62 - 2 * half)) >> 31  # Q31
    y = RSQRT_LINE[0] + ((RSQRT_LINE[1] * v) >> 31)  # Q30, as below
    for _ in range(RSQRT_STEPS):
        y = (y * ((3 << 30) - ((v * ((y * y) >> 30)) >> 31))) >> 31
    return np.clip(y, 2**30, 2**31 - 1), half


# 2^f for f within half an octave, in the argument 2f in Q15: a minimax fit of the relative error.
EXP2_CODE_BITS = 10
EXP2_CODE_COEFFICIENTS = (32639, 11314, 1977, 225)


def exp2_codes(exponent: ArrayLike) -> Int64:
    """``32639 * 2^(exponent / 2^10)``, rounded: relative error below 1.4e-4, plus half a code.

    The greatest code, 127 * 256 + 127, is also the greatest that splits into two int8 planes.

    Args:
        exponent: int16 values <= 0. 0 gives exactly 32639, and anything from -16 octaves on 0.
    """
    wide = np.asarray(exponent, np.int64)
    whole = rounding_shift(wide, EXP2_CODE_BITS)
    fraction = (wide - (whole << EXP2_CODE_BITS)) << (16 - EXP2_CODE_BITS)
    curve = np.full(fraction.shape, EXP2_CODE_COEFFICIENTS[-1], np.int64)
    for coefficient in EXP2_CODE_COEFFICIENTS[-2:0:-1]:
        curve = coefficient + mulhrs(curve, fraction)
    code = EXP2_CODE_COEFFICIENTS[0] + mulhrs(curve, fraction)  # a uint16
    return ((code << 1 >> -whole) + 1) >> 1
