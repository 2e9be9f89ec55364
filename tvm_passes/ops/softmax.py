"""Softmax over the last axis, from int32 accumulators or int16 codes to probabilities.

With d = max(x) - x, all in integers::

    t = d * scale / ln 2    binary exponent, Q14, one requantize
    e = 2^-t                Q30, a polynomial and a shift; exactly 2^30 at the maximum
    p = e / sum(e)          one reciprocal per row, one requantize per element

AdaLog codes need no division: ``-log_b(p) = (t + log2(sum(e))) / log2(b)`` is affine in t, so that
``code = requantize(t + L_row)`` with one logarithm per row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, frexp, log
from math import log2 as real_log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import (
    EXP2_BITS,
    INT_RANGE,
    LOG2_BITS,
    FixedPoint,
    exp2_negative,
    log2,
    mulhi,
    reciprocal,
    requantize,
    rounding_shift,
    saturate,
)
from tvm_passes.ops.base import Operator, TensorSpec, register
from tvm_passes.ops.pointwise import codes_per_octave

Array = NDArray[Any]

EXPONENT_LIMIT = 1 << 26  # t stops growing here, 4096 octaves below the maximum
INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class SoftmaxConfig:
    """Scale of the logits and format of the output.

    Attributes:
        right: d is shifted right by this, above 0 only for scales below 1e-8.
        left: static pre-shift of d.
        multiplier: fixed-point multiplier from d to t.
        shift: its shift.
        limit: d is clamped to this, far beyond the last exponent that matters.
        bits: probabilities have scale ``2^-bits``, over ``factor`` in Q31 where that is not 0; for
            AdaLog codes this is 0.
        code_multiplier: fixed-point multiplier from t to AdaLog codes, else 0.
        code_shift: its shift.
        code_offset: binary logarithm of the AdaLog scale, Q14.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code; of AdaLog the one that stands for zero.
        dtype: int16, int8 or uint8 (AdaLog).
        factor: of the reciprocals, Q31, in [2^30, 2^31); 0 for a scale that is a power of two.
    """

    right: int
    left: int
    multiplier: int
    shift: int
    limit: int
    bits: int
    code_multiplier: int
    code_shift: int
    code_offset: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str
    factor: int = 0


def softmax_config(scale: float, dtype: str = "int16", bits: int | None = None) -> SoftmaxConfig:
    """Probabilities of logits with ``scale``.

    Args:
        scale: real value of one step of x.
        dtype: "int16" (zero point 0, codes 0 .. 32767) or "int8" (zero point -128).
        bits: the scale of the output is ``2^-bits``; 15 for int16 and 8 for int8 when omitted.

    Raises:
        LoweringError: ``scale`` is not in [0, 1.3], or the output format is none of these.
    """
    widest = {"int16": 15, "int8": 8}.get(dtype)
    if widest is None or bits is not None and not 1 <= bits <= widest:
        raise LoweringError(f"softmax to {dtype} with {bits} bits: use int16 or int8")
    bits = widest if bits is None else bits
    zero_point = -128 if dtype == "int8" else 0
    greatest = zero_point + (1 << bits) - 1
    return uniform_softmax_config(scale, 2.0**-bits, zero_point, greatest, dtype)


def uniform_softmax_config(
    scale: float, out_scale: float, zero_point: int, qmax: int, dtype: str
) -> SoftmaxConfig:
    """Probabilities p of logits with ``scale``: ``floor(p / out_scale + 1/2) + zero_point``.

    Codes are clamped to ``qmax``. What is rounded is off by 5e-5 of itself, because exponents have
    14 fraction bits: codes differ from exact ones only next to a boundary.

    Args:
        scale: real value of one step of x.
        out_scale: real value of one step of the output, in [2^-15, 1].
        zero_point: the code of zero, the least that occurs.
        qmax: greatest code.
        dtype: int8 or int16.

    Raises:
        LoweringError: a scale is out of range, or there are no such codes.
    """
    if dtype not in ("int8", "int16") or not 2.0**-15 <= out_scale <= 1.0:
        raise LoweringError(f"softmax to {dtype} with scale {out_scale}: int8 or int16, 2^-15 to 1")
    if not INT_RANGE[dtype][0] <= zero_point < qmax <= INT_RANGE[dtype][1]:
        raise LoweringError(f"softmax to {dtype} codes from {zero_point} to {qmax}")
    mantissa, bits = frexp(1.0 / out_scale)
    factor = min(int(mantissa * 2.0**31 + 0.5), INT32_MAX)
    if mantissa == 0.5 and bits > 1:
        bits, factor = bits - 1, 0
    output = zero_point, zero_point, qmax, dtype, factor
    return SoftmaxConfig(*_exponent(scale), bits, 0, 1, 0, *output)


def adalog_softmax_config(
    scale: float, q: int, r: int, bits: int, out_scale: float = 1.0
) -> SoftmaxConfig:
    """AdaLog codes of the probabilities of logits with ``scale``.

    Args:
        scale: real value of one step of x.
        q: numerator of the base's exponent, base = 2^(q/r).
        r: its denominator.
        bits: width of a code, at most 8; code ``2^bits - 1`` stands for zero.
        out_scale: real value of code 0.

    Raises:
        LoweringError: a parameter is out of range.
    """
    if not 2.0**-64 < out_scale < 2.0**64:
        raise LoweringError(f"AdaLog codes of a softmax with scale {out_scale}")
    code = FixedPoint.from_real(codes_per_octave(q, r, bits) * 2.0**-EXP2_BITS)
    multiplier, shift = int(code.multiplier), int(code.shift)
    offset = round(real_log2(out_scale) * 2.0**EXP2_BITS)
    return SoftmaxConfig(
        *_exponent(scale), 0, multiplier, shift, offset, 0, 0, (1 << bits) - 1, "uint8"
    )


def _exponent(scale: float) -> tuple[int, int, int, int, int]:
    """``right``, ``left``, ``multiplier``, ``shift`` and ``limit`` of t."""
    right = 1 if 0 <= scale < 1e-8 else 0  # d may need all 32 bits
    real = scale / log(2.0) * 2.0 ** (EXP2_BITS + right)
    try:
        fixed = FixedPoint.from_real(real)
    except ValueError as error:
        raise LoweringError(f"softmax of logits with scale {scale}: {error}") from error
    limit = min(ceil(EXPONENT_LIMIT / real), INT32_MAX) if real > 0 else INT32_MAX
    return right, fixed.left, int(fixed.multiplier), int(fixed.shift), limit


def _reference(config: SoftmaxConfig, x: Array, bias: Array | None = None) -> Array:
    """x [..., N] int32 or int16, bias int32 of the same rank, added with saturation -> [..., N]."""
    logits = x.astype(np.int64)
    if bias is not None:
        logits = np.clip(logits + bias, -(2**31), INT32_MAX)
    distance = (logits.max(-1, keepdims=True) - logits) >> config.right
    distance = np.minimum(distance, config.limit)
    exponent = requantize(distance, config.multiplier, config.shift, config.left)
    weights = exp2_negative(exponent)
    total = weights.sum(-1, keepdims=True)
    if config.bits == 0:
        row = rounding_shift(log2(total) - (30 << LOG2_BITS), LOG2_BITS - EXP2_BITS)
        row = row + config.code_offset
        codes = requantize(exponent + row, config.code_multiplier, config.code_shift)
        return saturate(codes, config.qmin, config.qmax, config.dtype)
    inverse, length = reciprocal(total)
    if config.factor:
        inverse = mulhi(inverse, config.factor)
    shift = length - 1 - config.bits
    inverse = np.where(shift > 31, 0, inverse)  # all below half a code
    codes = rounding_shift(mulhi(weights, inverse), np.minimum(shift, 31)) + config.zero_point
    return saturate(codes, config.qmin, config.qmax, config.dtype)


def _infer(config: SoftmaxConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    shape = specs[0].shape
    if len(specs) > 1 and np.broadcast_shapes(shape, specs[1].shape) != shape:
        raise LoweringError(f"softmax: a bias of shape {specs[1].shape} does not fit {shape}")
    return TensorSpec(shape, config.dtype)


register(Operator("softmax", SoftmaxConfig, _infer, _reference))
