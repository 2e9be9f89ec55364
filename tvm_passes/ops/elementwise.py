"""Products and changes of format: ``mul`` and ``requantize``, and what sums share with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import (
    INT_RANGE,
    FixedPoint,
    Int64,
    Rescale,
    requantize,
    rescale,
    saturate,
)
from tvm_passes.ops.base import Operator, TensorSpec, register, same_as

Array = NDArray[Any]

INT32_MAX = 2**31 - 1


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
        multiplier: multiplier, a ``Rescale``.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8, uint8, int16 or int32.
    """

    zero_x: int
    left: int
    multiplier: int
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


def rescaling(real: float | NDArray[np.float64]) -> Rescale:
    """Form of real multipliers for ``rescale``.

    Raises:
        LoweringError: one is negative, or 2^15 and above.
    """
    try:
        return Rescale.from_real(real)
    except ValueError as error:
        raise LoweringError(f"cannot change the scale by {real}: {error}") from error


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
    form = rescaling(scale / out_scale)
    return RequantizeConfig(
        zero_point, form.left, int(form.multiplier), out_zero_point, qmin, qmax, dtype
    )


def _mul_reference(config: MulConfig, a: Array, b: Array) -> Array:
    """a and b int8, uint8 or int16 -> the broadcast shape."""
    product = (a.astype(np.int64) - config.zero_a) * (b.astype(np.int64) - config.zero_b)
    acc = pre_shifted(product, config.left)
    value = requantize(acc, config.multiplier, config.shift, config.left) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _requantize_reference(config: RequantizeConfig, x: Array) -> Array:
    """x int8, uint8, int16 or int32 -> the same shape."""
    acc = pre_shifted(x.astype(np.int64) - config.zero_x, config.left)
    value = rescale(acc, config.multiplier, config.left) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def broadcast(config: Any, specs: Sequence[TensorSpec]) -> TensorSpec:
    """Type of an operator whose operands broadcast like NumPy's.

    Raises:
        LoweringError: the shapes do not broadcast.
    """
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


register(Operator("mul", MulConfig, broadcast, _mul_reference))
register(Operator("requantize", RequantizeConfig, _requantize_infer, _requantize_reference))
