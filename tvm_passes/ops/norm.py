"""LayerNorm over the last axis without affine parameters; GroupNorm(1) is one long row.

The zero point of x cancels, so raw codes are summed. With n the length of a row::

    mean     in codes, with ``mean_bits`` fraction bits
    w        = 2^k * n * (variance + epsilon), exact up to one unit
    y        = (x - mean) * c / sqrt(w) + zero_point,   c = sqrt(n * 2^k) / out_scale

The reciprocal square root is integer Newton; the multiplier and shift of a row are found at run
time, then every element takes one requantize.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import frexp, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import (
    Int64,
    mulhi,
    reciprocal_sqrt,
    rounding_shift,
    saturate,
)
from tvm_passes.ops.base import Operator, TensorSpec, register, same_as

Array = NDArray[Any]

CODE_BITS = {"int8": 8, "uint8": 8, "int16": 16}


@dataclass(frozen=True)
class LayerNormConfig:
    """Row length and formats of ``layer_norm``.

    Attributes:
        length: elements of a row.
        mean_bits: fraction bits of the mean and of the centred codes.
        variance_bits: k, the fraction bits of w.
        epsilon: ``2^k * n * epsilon`` in squared codes, at least 1.
        multiplier: mantissa of c / 2^mean_bits, in [2^30, 2^31).
        exponent: c / 2^mean_bits = multiplier * 2^(exponent - 31).
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8 or int16.
    """

    length: int
    mean_bits: int
    variance_bits: int
    epsilon: int
    multiplier: int
    exponent: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


def layer_norm_config(
    scale: float,
    epsilon: float,
    out_scale: float,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
    *,
    length: int,
    in_dtype: str,
) -> LayerNormConfig:
    """Configuration for rows of ``length`` codes of ``in_dtype`` with ``scale``.

    Args:
        scale: real value of one step of x.
        epsilon: added to the variance, in real units.
        out_scale: real value of one step of the output.
        out_zero_point: its zero point.
        qmin: least output code.
        qmax: greatest output code.
        dtype: dtype of the output.
        length: elements of a row, at most 2^24.
        in_dtype: int8, uint8 or int16.

    Raises:
        LoweringError: the row is too long, or a scale makes an intermediate overflow.
    """
    width = CODE_BITS[in_dtype]
    if not 1 <= length <= 2**24:
        raise LoweringError(f"layer_norm over {length} elements: at most 2^24 are possible")
    length_bits = length.bit_length()
    # n * variance stays below 2^(length_bits + 2 * width - 2), the square of a remainder below n^2
    bits = min(30, 60 - length_bits - 2 * width + 2, 62 - 2 * length_bits)
    weight = epsilon / scale**2 * length * 2.0**bits
    if weight >= 2.0**60:
        raise LoweringError(f"layer_norm: epsilon {epsilon} exceeds the range of scale {scale}")
    if sqrt(length) / out_scale >= 2.0**28:
        raise LoweringError(f"layer_norm: output scale {out_scale} is too small")
    mean_bits = 30 - width
    mantissa, exponent = frexp(sqrt(length * 2.0**bits) / out_scale / 2.0**mean_bits)
    multiplier = min(int(mantissa * 2.0**31 + 0.5), 2**31 - 1)
    return LayerNormConfig(
        length,
        mean_bits,
        bits,
        max(1, int(weight + 0.5)),
        multiplier,
        exponent,
        out_zero_point,
        qmin,
        qmax,
        dtype,
    )


def row_multiplier(config: LayerNormConfig, w: Int64) -> tuple[Int64, Int64, Int64]:
    """``c / sqrt(w)`` as multiplier, shift in [1, 31] and pre-shift of every row."""
    inverse, half = reciprocal_sqrt(w)
    product = inverse * config.multiplier  # in [2^60, 2^62)
    large = product >> 61
    multiplier = product >> (30 + large)
    shift = half - config.exponent - large
    left = np.maximum(1 - shift, 0)
    return np.where(shift > 31, 0, multiplier), np.clip(shift, 1, 31), left


def _reference(config: LayerNormConfig, x: Array) -> Array:
    """x [..., C] int8, uint8 or int16 -> [..., C]."""
    codes, n = x.astype(np.int64), config.length
    total = codes.sum(-1, keepdims=True)
    squares = (codes * codes).sum(-1, keepdims=True)
    mean, rest = total // n, total % n
    # sum((x - mean)^2) = squares - mean * (total + rest); the fraction rest / n corrects the mean
    spread = squares - mean * (total + rest)
    k = config.variance_bits
    w = (spread << k) - ((rest * rest) << k) // n + config.epsilon
    multiplier, shift, left = row_multiplier(config, w)
    fine = (mean << config.mean_bits) + (2 * (rest << config.mean_bits) + n) // (2 * n)
    centred = (codes << config.mean_bits) - fine
    value = rounding_shift(mulhi(centred << left, multiplier), shift) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _infer(config: LayerNormConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    if specs[0].shape[-1] != config.length:
        raise LoweringError(
            f"layer_norm made for rows of {config.length} got one of {specs[0].shape[-1]}"
        )
    return same_as()(config, specs)


register(Operator("layer_norm", LayerNormConfig, _infer, _reference))
