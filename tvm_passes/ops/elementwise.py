"""Sums, products and changes of format: ``add``, ``scaled_add``, ``mul``, ``requantize``.

A sum brings both operands to one fixed-point format and rounds once::

    y = rounding_shift(mulhi((a - za) << la, ma) + mulhi((b - zb) << lb, mb), s) + zo

with s as large as the bounds of the operands allow, so that the two floors are a small fraction
of a step. Operands broadcast like NumPy's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, frexp
from math import log2 as real_log2
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import (
    INT_RANGE,
    FixedPoint,
    Int64,
    mulhi,
    requantize,
    rounding_shift,
    saturate,
)
from tvm_passes.ops.base import Operator, TensorSpec, register, same_as

Array = NDArray[Any]

TERM_LIMIT = 2.0**29.5  # of each term of a sum; two of them and the rounding stay below 2^31
INT32_MAX = 2**31 - 1


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


@dataclass(frozen=True)
class MulConfig:
    """``(a - zero_a) * (b - zero_b)``, requantized.

    Attributes:
        zero_a: zero point of a.
        zero_b: zero point of b.
        left: static pre-shift of the product, which saturates.
        multiplier: fixed-point multiplier.
        shift: its shift.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8, int16 or int32.
    """

    zero_a: int
    zero_b: int
    left: int
    multiplier: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


@dataclass(frozen=True)
class RequantizeConfig:
    """Change of format.

    Attributes:
        zero_x: zero point of the input, 0 for int32.
        left: static pre-shift, which saturates.
        multiplier: fixed-point multiplier.
        shift: its shift.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8, uint8, int16 or int32.
    """

    zero_x: int
    left: int
    multiplier: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


def reach(dtype: str, zero_point: int) -> int:
    """Greatest absolute value of a code minus its zero point."""
    low, high = INT_RANGE[dtype]
    return max(high - zero_point, zero_point - low)


def pre_shifted(value: Int64, left: int) -> Int64:
    """Clamp so that ``value << left`` fits int32.

    What is cut off lies beyond every int8 and int16 code: a pre-shift of ``left`` comes with a real
    multiplier of at least ``2^(left-2)``.
    """
    limit = INT32_MAX >> left
    return np.clip(value, -limit, limit) if left else value


def fixed_point(real: float) -> tuple[int, int, int]:
    """Left shift, multiplier and shift of one real multiplier.

    Raises:
        LoweringError: it is negative, or 2^15 and above.
    """
    try:
        fixed = FixedPoint.from_real(real)
    except ValueError as error:
        raise LoweringError(f"cannot change the scale by {real}: {error}") from error
    return fixed.left, int(fixed.multiplier), int(fixed.shift)


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


def mul_config(
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
) -> MulConfig:
    """Product of two tensors; arguments as ``add_config``.

    Raises:
        LoweringError: products may overflow int32, or a scale is out of range.
    """
    if reach(dtype_a, zero_a) * reach(dtype_b, zero_b) > INT32_MAX:
        raise LoweringError(f"products of {dtype_a} and {dtype_b} codes overflow int32")
    left, multiplier, shift = fixed_point(scale_a * scale_b / out_scale)
    return MulConfig(zero_a, zero_b, left, multiplier, shift, out_zero_point, qmin, qmax, dtype)


def requantize_config(
    scale: float,
    zero_point: int,
    out_scale: float,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
) -> RequantizeConfig:
    """Change of format; arguments as ``add_config``.

    Raises:
        LoweringError: a scale is out of range.
    """
    left, multiplier, shift = fixed_point(scale / out_scale)
    return RequantizeConfig(zero_point, left, multiplier, shift, out_zero_point, qmin, qmax, dtype)


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


def _mul_reference(config: MulConfig, a: Array, b: Array) -> Array:
    """a and b int8, uint8 or int16 -> the broadcast shape."""
    product = (a.astype(np.int64) - config.zero_a) * (b.astype(np.int64) - config.zero_b)
    acc = pre_shifted(product, config.left)
    value = requantize(acc, config.multiplier, config.shift, config.left) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _requantize_reference(config: RequantizeConfig, x: Array) -> Array:
    """x int8, uint8, int16 or int32 -> the same shape."""
    acc = pre_shifted(x.astype(np.int64) - config.zero_x, config.left)
    value = requantize(acc, config.multiplier, config.shift, config.left) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _broadcast(config: Any, specs: Sequence[TensorSpec]) -> TensorSpec:
    try:
        shape = np.broadcast_shapes(*(spec.shape for spec in specs))
    except ValueError as error:
        shapes = [spec.shape for spec in specs]
        raise LoweringError(f"shapes {shapes} do not broadcast") from error
    return TensorSpec(tuple(map(int, shape)), config.dtype)


def _requantize_infer(config: RequantizeConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    if specs[0].dtype == "int32" and config.zero_x:
        raise LoweringError("requantize: int32 codes have no zero point")
    return same_as()(config, specs)


register(Operator("add", AddConfig, _broadcast, _add_reference))
register(Operator("scaled_add", ScaledAddConfig, _broadcast, _scaled_add_reference))
register(Operator("mul", MulConfig, _broadcast, _mul_reference))
register(Operator("requantize", RequantizeConfig, _requantize_infer, _requantize_reference))
