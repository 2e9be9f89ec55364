"""Sums: ``add`` and ``scaled_add``.

A sum brings both operands to one fixed-point format and rounds once::

    y = rounding_shift(mulhi((a - za) << la, ma) + mulhi((b - zb) << lb, mb), s) + zo

with s as large as the bounds of the operands allow, so that the two floors are a small fraction
of a step. Operands broadcast like NumPy's.
"""

from dataclasses import dataclass
from math import floor, frexp
from math import log2 as real_log2
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import (
    mulhi,
    rounding_shift,
    saturate,
)
from tvm_passes.ops.base import Operator, register
from tvm_passes.ops.elementwise import INT32_MAX, broadcast, reach

Array = NDArray[Any]

TERM_LIMIT = 2.0**29.5  # of each term of a sum; two of them and the rounding stay below 2^31


@dataclass(frozen=True)
class ScaledAddConfig:
    """``a * ra + b * rb`` with factors per channel, given as int32 tensors.

    Attributes:
        zero_a: zero point of a.
        left_a: pre-shift of a.
        zero_b: zero point of b.
        left_b: pre-shift of b.
        shift: common fraction bits of the two terms.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8 or int16.
    """

    zero_a: int
    left_a: int
    zero_b: int
    left_b: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


@dataclass(frozen=True)
class AddConfig(ScaledAddConfig):
    """``a * ra + b * rb`` with scalar factors.

    Attributes:
        multiplier_a: int32 factor of a, of any sign.
        multiplier_b: int32 factor of b, of any sign.
    """

    multiplier_a: int
    multiplier_b: int


def add_config(
    scale_a: float,
    zero_a: int,
    scale_b: float,
    zero_b: int,
    out_scale: float,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
    dtype_a: str,
    dtype_b: str,
    limit_b: int | None = None,
) -> AddConfig:
    """Sum of two tensors with scalar scales.

    Args:
        scale_a: real value of one step of a (with a constant factor included, of any sign).
        zero_a: zero point of a.
        scale_b: as ``scale_a``.
        zero_b: zero point of b.
        out_scale: real value of one step of the output.
        out_zero_point: its zero point.
        qmin: least output code.
        qmax: greatest output code.
        dtype: dtype of the output.
        dtype_a: int8 or int16.
        dtype_b: int8, int16, or int32 for a constant with zero point 0.
        limit_b: greatest absolute value of ``b - zero_b``, needed for int32.

    Raises:
        LoweringError: a scale is out of range.
    """
    config, multiplier_a, multiplier_b = scaled_add_config(
        scale_a,
        zero_a,
        scale_b,
        zero_b,
        out_scale,
        out_zero_point,
        qmin,
        qmax,
        dtype,
        dtype_a,
        dtype_b,
        limit_b,
    )
    return AddConfig(
        **vars(config), multiplier_a=int(multiplier_a[0]), multiplier_b=int(multiplier_b[0])
    )


def scaled_add_config(
    scale_a: ArrayLike,
    zero_a: int,
    scale_b: ArrayLike,
    zero_b: int,
    out_scale: float,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
    dtype_a: str,
    dtype_b: str,
    limit_b: int | None = None,
) -> tuple[ScaledAddConfig, NDArray[np.int32], NDArray[np.int32]]:
    """Sum of two tensors with scales per channel.

    Args as ``add_config``; ``scale_a`` and ``scale_b`` are scalars or 1-D along the last axis.

    Returns:
        The configuration and the multipliers of a and b, arguments 2 and 3 of ``scaled_add``:
        int32 [C], or [1] for a scalar.

    Raises:
        LoweringError: a scale is out of range.
    """
    real_a = np.atleast_1d(np.asarray(scale_a, np.float64)) / out_scale
    real_b = np.atleast_1d(np.asarray(scale_b, np.float64)) / out_scale
    bound_a = reach(dtype_a, zero_a)
    bound_b = reach(dtype_b, zero_b) if limit_b is None else max(limit_b, 1)
    greatest = max(np.abs(real_a).max() * bound_a, np.abs(real_b).max() * bound_b, 2.0**-64)
    if not np.isfinite(greatest) or greatest >= 2.0**28:
        raise LoweringError(f"a sum reaches {greatest} output steps: check its scales")
    shift = min(floor(real_log2(TERM_LIMIT / greatest)), 31)
    left_a, multiplier_a = _term(real_a, shift, bound_a)
    left_b, multiplier_b = _term(real_b, shift, bound_b)
    config = ScaledAddConfig(
        zero_a, left_a, zero_b, left_b, shift, out_zero_point, qmin, qmax, dtype
    )
    return config, multiplier_a, multiplier_b


def _term(real: NDArray[np.float64], shift: int, bound: int) -> tuple[int, NDArray[np.int32]]:
    """Pre-shift and multipliers so that ``mulhi(x << left, m) = x * real * 2^shift``."""
    room = max(31 - bound.bit_length(), 0)
    needed = frexp(np.abs(real).max() * 2.0**shift)[1]  # |m| < 2^31 asks for at least this
    left = min(max(needed, 0), room)
    multiplier = np.floor(real * 2.0 ** (31 + shift - left) + 0.5)
    return left, np.clip(multiplier, -INT32_MAX, INT32_MAX).astype(np.int32)


def _sum(config: ScaledAddConfig, a: Array, b: Array, ma: ArrayLike, mb: ArrayLike) -> Array:
    terms = mulhi((a.astype(np.int64) - config.zero_a) << config.left_a, ma) + mulhi(
        (b.astype(np.int64) - config.zero_b) << config.left_b, mb
    )
    value = rounding_shift(terms, config.shift) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _add_reference(config: AddConfig, a: Array, b: Array) -> Array:
    """a int8 or int16, b int8, int16 or int32 -> the broadcast shape."""
    return _sum(config, a, b, config.multiplier_a, config.multiplier_b)


def _scaled_add_reference(
    config: ScaledAddConfig, a: Array, b: Array, ma: Array, mb: Array
) -> Array:
    """As ``add``, with int32 multipliers [C] or [1] along the last axis."""
    return _sum(config, a, b, ma, mb)


register(Operator("add", AddConfig, broadcast, _add_reference))
register(Operator("scaled_add", ScaledAddConfig, broadcast, _scaled_add_reference))
