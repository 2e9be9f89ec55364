"""Changes of format with a factor per channel: ``scale_channels`` and ``requantize_channels``.

The channels lie along the last axis. To 8-bit codes and factors that do not differ by more than
about ten, 16-bit lanes are enough, and two instructions on NEON::

    y = rounding_shift((zero_point << s) + mulhrs((x - zero_x) << left, m[c]), s)

rounded twice; ``scale_channels_config`` bounds what that and rounding m add to the half step of
the last rounding. Anything else takes 32 bits and is as exact as ``requantize``::

    y = requantize((x - zero_x) << left, m[c], s[c]) + zero_point
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import (
    INT_RANGE,
    FixedPoint,
    mulhrs,
    requantize,
    rounding_shift,
    saturate,
)
from tvm_passes.ops.base import Operator, TensorSpec, register, same_as
from tvm_passes.ops.elementwise import pre_shifted, reach

Array = NDArray[Any]
Float = NDArray[np.float64]

GREATEST_FACTOR = 2**15 - 1
GREATEST_SHIFT = 7  # 8-bit codes and as many bits again, without a sign to lose


@dataclass(frozen=True)
class ScaleChannelsConfig:
    """Formats of ``scale_channels``; arguments x, multiplier [C] int16.

    Attributes:
        zero_x: zero point of the input, 0 for int16.
        left: static pre-shift of the input, 0 for int16.
        shift: fraction bits of the products, 1 to 7.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8 or uint8.
    """

    zero_x: int
    left: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


@dataclass(frozen=True)
class RequantizeChannelsConfig:
    """Formats of ``requantize_channels``; arguments x, multiplier [C], shift [C], both int32.

    Attributes:
        zero_x: zero point of the input, 0 for int32.
        left: static pre-shift, 0 for int32.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8, uint8, int16 or int32.
    """

    zero_x: int
    left: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


def scale_channels_config(
    steps: Float,
    in_dtype: str,
    zero_x: int,
    zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
) -> tuple[ScaleChannelsConfig, NDArray[np.int16], float] | None:
    """Factors in 16-bit lanes, or None where a format or a factor does not fit them.

    Args:
        steps: [C], steps of the output that one of the input makes, of any sign.
        in_dtype: int8, uint8 or int16.
        zero_x: zero point of the input.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: dtype of the output.

    Returns:
        The configuration, the multipliers, and how far at most a code is from the exact one before
        the last rounding, in steps.
    """
    narrow = {"int8": 7, "uint8": 7, "int16": 0}
    if in_dtype not in narrow or dtype not in ("int8", "uint8") or (zero_x and in_dtype == "int16"):
        return None
    left, greatest = narrow[in_dtype], float(np.abs(steps).max(initial=0.0))
    for shift in range(GREATEST_SHIFT, 0, -1):
        unit = 2.0 ** (left - 15 - shift)
        if greatest <= GREATEST_FACTOR * unit:
            multiplier = np.floor(steps / unit + 0.5)
            config = ScaleChannelsConfig(zero_x, left, shift, zero_point, qmin, qmax, dtype)
            farthest = max(qmax - zero_point, zero_point - qmin) + 1.0
            inputs = np.minimum(
                farthest / np.maximum(np.abs(steps), 1e-300), reach(in_dtype, zero_x)
            )
            error = float((inputs * np.abs(multiplier * unit - steps)).max(initial=0.0))
            return config, multiplier.astype(np.int16), error + 2.0 ** -(shift + 1)
    return None


def requantize_channels_config(
    steps: Float,
    in_dtype: str,
    zero_x: int,
    zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
) -> tuple[RequantizeChannelsConfig, NDArray[np.int32], NDArray[np.int32]]:
    """Factors in 32-bit lanes; arguments as ``scale_channels_config``.

    Returns:
        The configuration, the multipliers and their shifts.

    Raises:
        LoweringError: a factor is 2^15 and above; or 0.5 and above for int32, which has no room for
            a pre-shift.
    """
    try:
        form = FixedPoint.from_real(np.abs(steps))
    except ValueError as error:
        raise LoweringError(f"cannot change the scale of channels: {error}") from error
    if in_dtype == "int32" and (form.left or zero_x):
        raise LoweringError("int32 codes have no room for factors of 0.5 and above")
    config = RequantizeChannelsConfig(zero_x, form.left, zero_point, qmin, qmax, dtype)
    return config, (np.sign(steps) * form.multiplier).astype(np.int32), form.shift


def _scale_reference(config: ScaleChannelsConfig, x: Array, multiplier: Array) -> Array:
    """x [..., C] int8, uint8 or int16 -> the same shape."""
    words = (x.astype(np.int64) - config.zero_x) << config.left
    total = (config.zero_point << config.shift) + mulhrs(words, multiplier)
    total = saturate(total, *INT_RANGE["int16"], "int16").astype(np.int64)
    return saturate(rounding_shift(total, config.shift), config.qmin, config.qmax, config.dtype)


def _requantize_reference(
    config: RequantizeChannelsConfig, x: Array, multiplier: Array, shift: Array
) -> Array:
    """x [..., C] int8, uint8, int16 or int32 -> the same shape."""
    acc = pre_shifted(x.astype(np.int64) - config.zero_x, config.left)
    value = requantize(acc, multiplier, shift, config.left) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _infer(
    config: ScaleChannelsConfig | RequantizeChannelsConfig, specs: Sequence[TensorSpec]
) -> TensorSpec:
    x, *factors = specs
    if any(factor.shape != x.shape[-1:] for factor in factors):
        raise LoweringError(f"factors {factors[0]} for channels of a tensor {x}")
    return same_as()(config, specs)


register(Operator("scale_channels", ScaleChannelsConfig, _infer, _scale_reference))
register(Operator("requantize_channels", RequantizeChannelsConfig, _infer, _requantize_reference))
