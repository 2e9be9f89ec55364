"""Products with constant weights: ``linear`` and ``conv2d``.

Both compute ``acc = sum(x * w) + bias`` on the raw codes: zero points are folded into the bias by
the lowering, and padding is an operator of its own (``pad``), so a zero point never meets a border.
Arguments of both: x, w, bias, multiplier; the last is int32 per output channel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.numerics import rescale, saturate
from tvm_passes.ops.base import Operator, TensorSpec, register

Array = NDArray[Any]


@dataclass(frozen=True)
class LinearConfig:
    """Output format of ``linear``.

    Attributes:
        left: static pre-shift of the accumulator.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8, int16 or int32.
    """

    left: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


@dataclass(frozen=True)
class Conv2dConfig(LinearConfig):
    """Geometry and output format of ``conv2d`` on an already padded NHWC input.

    Attributes:
        strides: rows, columns.
        dilation: rows, columns.
        groups: number of channel groups; with more channels in all groups than the input has, these
            repeat, so that group g reads from channel ``g * channels per group mod channels`` on.
        row_classes: per output row its border class, or empty where the bias has one row.
        column_classes: per output column its border class. The bias row of a pixel is
            ``row_class * (max(column_classes) + 1) + column_class``.
    """

    strides: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    row_classes: tuple[int, ...] = ()
    column_classes: tuple[int, ...] = ()


def bias_rows(config: Conv2dConfig, height: int, width: int) -> NDArray[np.int64]:
    """Row of the bias table for each output pixel, shape [height, width]."""
    if not config.row_classes:
        return np.zeros((height, width), np.int64)
    columns = np.asarray(config.column_classes)
    return np.asarray(config.row_classes)[:, None] * (columns.max() + 1) + columns[None, :]


def exact_matmul(a: Array, b: Array) -> NDArray[np.int64]:
    """Integer matrix product through float64, exact while every sum stays below 2^53."""
    return np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64)


def _finish(config: LinearConfig, acc: Array, multiplier: Array) -> Array:
    value = rescale(acc, multiplier, config.left) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _linear_reference(
    config: LinearConfig, x: Array, w: Array, bias: Array, multiplier: Array
) -> Array:
    """x [..., K] (int8, uint8, int16), w [N, K] int8, bias [1, N] int32 -> [..., N]."""
    return _finish(config, exact_matmul(x, w.T) + bias[0], multiplier)


def _conv2d_reference(
    config: Conv2dConfig, x: Array, w: Array, bias: Array, multiplier: Array
) -> Array:
    """x [1, H, W, C], w [O, kh, kw, C/groups] int8, bias [P, O] int32 -> [1, OH, OW, O]."""
    spec = _conv2d_infer(config, [TensorSpec(x.shape, "int8"), TensorSpec(w.shape, "int8")])
    _, height, width, channels = spec.shape
    groups, depth = config.groups, w.shape[3]
    acc = np.zeros((height, width, groups, channels // groups), np.int64)
    for i in range(w.shape[1]):
        for j in range(w.shape[2]):
            top, left = i * config.dilation[0], j * config.dilation[1]
            taps = x[
                0,
                top : top + (height - 1) * config.strides[0] + 1 : config.strides[0],
                left : left + (width - 1) * config.strides[1] + 1 : config.strides[1],
            ]
            taps = np.tile(taps, groups * depth // x.shape[3])
            taps = taps.reshape(height, width, groups, 1, depth)
            kernel = w[:, i, j].reshape(groups, channels // groups, depth).swapaxes(1, 2)
            acc += exact_matmul(taps, kernel)[..., 0, :]
    total = acc.reshape(height, width, channels) + bias[bias_rows(config, height, width)]
    return _finish(config, total, multiplier)[None]


def _linear_infer(config: LinearConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    return TensorSpec((*specs[0].shape[:-1], specs[1].shape[0]), config.dtype)


def _conv2d_infer(config: Conv2dConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    batch, *extents, _ = specs[0].shape
    channels, *kernel, _ = specs[1].shape
    height, width = (
        (extent - dilation * (taps - 1) - 1) // stride + 1
        for extent, taps, stride, dilation in zip(
            extents, kernel, config.strides, config.dilation, strict=True
        )
    )
    return TensorSpec((batch, height, width, channels), config.dtype)


register(Operator("linear", LinearConfig, _linear_infer, _linear_reference))
register(Operator("conv2d", Conv2dConfig, _conv2d_infer, _conv2d_reference))
