"""Averages: ``mean`` over axes and ``avg_pool2d`` over windows that leave the padding out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import requantize, rescale, saturate
from tvm_passes.ops.base import Operator, TensorSpec, register
from tvm_passes.ops.elementwise import fixed_point, pre_shifted, reach, rescaling

Array = NDArray[Any]


@dataclass(frozen=True)
class MeanConfig:
    """Axes and output format of ``mean``.

    Attributes:
        axes: reduced axes, not negative, ascending.
        keepdims: keep them with extent 1.
        zero_x: zero point of the input.
        right: sums are shifted right by this where they could leave the int32 range, mostly 0.
        left: static pre-shift, which saturates.
        multiplier: fixed-point multiplier, the division included.
        shift: its shift.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8 or int16.
    """

    axes: tuple[int, ...]
    keepdims: bool
    zero_x: int
    right: int
    left: int
    multiplier: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


@dataclass(frozen=True)
class AvgPool2dConfig:
    """Windows and output format of ``avg_pool2d`` on an unpadded NHWC map.

    Attributes:
        kernel: rows, columns of a window.
        strides: rows, columns.
        padding: rows, columns on either side; not counted in the average.
        zero_x: zero point of the input.
        left: static pre-shift of the sum, which saturates.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8 or int16.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int]
    zero_x: int
    left: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


def mean_config(
    scale: float,
    zero_point: int,
    out_scale: float,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
    *,
    shape: Sequence[int],
    axes: Sequence[int],
    keepdims: bool,
    in_dtype: str,
) -> MeanConfig:
    """Mean over ``axes`` of a tensor of ``shape``.

    Args:
        scale: real value of one step of x.
        zero_point: its zero point.
        out_scale: real value of one step of the output.
        out_zero_point: its zero point.
        qmin: least output code.
        qmax: greatest output code.
        dtype: dtype of the output.
        shape: shape of x.
        axes: reduced axes, may be negative.
        keepdims: keep them with extent 1.
        in_dtype: int8 or int16.

    Raises:
        LoweringError: a scale is out of range.
    """
    reduced = tuple(sorted(axis % len(shape) for axis in axes))
    count = int(np.prod([shape[axis] for axis in reduced], dtype=np.int64))
    right = max((count * reach(in_dtype, zero_point)).bit_length() - 31, 0)
    left, multiplier, shift = fixed_point(scale / out_scale / count * 2.0**right)
    return MeanConfig(
        reduced,
        keepdims,
        zero_point,
        right,
        left,
        multiplier,
        shift,
        out_zero_point,
        qmin,
        qmax,
        dtype,
    )


def avg_pool2d_config(
    scale: float,
    zero_point: int,
    out_scale: float,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
    *,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, int],
) -> tuple[AvgPool2dConfig, NDArray[np.int32]]:
    """Average over windows, count_include_pad=False.

    Args as ``mean_config``, and the geometry as rows, columns.

    Returns:
        The configuration, and the multipliers by the number of codes in a window, argument 1 of
        the operator: int32 [kernel[0] * kernel[1] + 1].

    Raises:
        LoweringError: a scale is out of range, or windows lie wholly in the padding.
    """
    if any(pad >= taps for pad, taps in zip(padding, kernel, strict=True)):
        raise LoweringError(f"avg_pool2d: padding {padding} leaves windows {kernel} empty")
    counts = np.arange(kernel[0] * kernel[1] + 1)
    real = np.where(counts > 0, scale / out_scale / np.maximum(counts, 1), 0.0)
    form = rescaling(real)
    config = AvgPool2dConfig(
        kernel, strides, padding, zero_point, form.left, out_zero_point, qmin, qmax, dtype
    )
    return config, form.multiplier


def _mean_reference(config: MeanConfig, x: Array) -> Array:
    """x int8 or int16 of any rank -> the mean over ``axes``."""
    codes = x.astype(np.int64) - config.zero_x
    total = codes.sum(config.axes, keepdims=config.keepdims) >> config.right
    acc = pre_shifted(total, config.left)
    value = requantize(acc, config.multiplier, config.shift, config.left) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _mean_infer(config: MeanConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    shape = [
        1 if axis in config.axes else extent
        for axis, extent in enumerate(specs[0].shape)
        if config.keepdims or axis not in config.axes
    ]
    return TensorSpec(tuple(shape), config.dtype)


def _avg_pool2d_reference(config: AvgPool2dConfig, x: Array, multiplier: Array) -> Array:
    """x [N, H, W, C] int8 or int16 -> [N, OH, OW, C]."""
    batch, rows, columns, channels = _avg_pool2d_infer(config, [TensorSpec(x.shape, "")]).shape
    pads = [(0, 0), *((pad, pad) for pad in config.padding), (0, 0)]
    codes = np.pad(x.astype(np.int64) - config.zero_x, pads)
    inside = np.pad(np.ones((1, *x.shape[1:3], 1), np.int64), pads)
    total = np.zeros((batch, rows, columns, channels), np.int64)
    count = np.zeros((1, rows, columns, 1), np.int64)
    for i in range(config.kernel[0]):
        for j in range(config.kernel[1]):
            window = (
                slice(None),
                slice(i, i + (rows - 1) * config.strides[0] + 1, config.strides[0]),
                slice(j, j + (columns - 1) * config.strides[1] + 1, config.strides[1]),
            )
            total += codes[window]
            count += inside[window]
    acc = pre_shifted(total, config.left)
    value = rescale(acc, multiplier[count], config.left) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _avg_pool2d_infer(config: AvgPool2dConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    batch, *extents, channels = specs[0].shape
    rows, columns = (
        (extent + 2 * pad - taps) // stride + 1
        for extent, pad, taps, stride in zip(
            extents, config.padding, config.kernel, config.strides, strict=True
        )
    )
    return TensorSpec((batch, rows, columns, channels), config.dtype)


register(Operator("mean", MeanConfig, _mean_infer, _mean_reference))
register(Operator("avg_pool2d", AvgPool2dConfig, _avg_pool2d_infer, _avg_pool2d_reference))
