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
from math import ceil, log
from math import log2 as real_log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import (
    EXP2_BITS,
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

Array = NDArray[Any]

LOG_RESOLUTION = 37  # AdaLog's r: code steps are q / 37 octaves (AdaLog, section 3.2)
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
        bits: probabilities have scale ``2^-bits``; 0 for AdaLog codes.
        code_multiplier: fixed-point multiplier from t to AdaLog codes, else 0.
        code_shift: its shift.
        code_offset: binary logarithm of the AdaLog scale, Q14.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code; of AdaLog the one that stands for zero.
        dtype: int16, int8 or uint8 (AdaLog).
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
    qmax = zero_point + (1 << bits) - 1
    return SoftmaxConfig(*_exponent(scale), bits, 0, 1, 0, zero_point, zero_point, qmax, dtype)


def adalog_softmax_config(scale: float, q: int, bits: int, out_scale: float = 1.0) -> SoftmaxConfig:
    """AdaLog codes of the probabilities of logits with ``scale``.

    Args:
        scale: real value of one step of x.
        q: numerator of the base's exponent, base = 2^(q/37).
        bits: width of a code, at most 8; code ``2^bits - 1`` stands for zero.
        out_scale: real value of code 0.

    Raises:
        LoweringError: ``scale``, ``q`` or ``bits`` is out of range.
    """
    if q < 1 or not 1 <= bits <= 8 or not 2.0**-64 < out_scale < 2.0**64:
        raise LoweringError(
            f"AdaLog with q = {q}, {bits} bits, scale {out_scale}: q >= 1 and 1 to 8 bits exist"
        )
    code = FixedPoint.from_real(LOG_RESOLUTION / (q * 2.0**EXP2_BITS))
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
