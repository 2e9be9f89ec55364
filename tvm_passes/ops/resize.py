"""Bilinear interpolation of an NHWC map: ``resize_bilinear``.

Both interpolations run on codes shifted far to the left, so that their floors vanish against the
one rounding at the end::

    h = mulhi((x[r, c0] - z) << l, w0) + mulhi((x[r, c1] - z) << l, w1)        weights Q30
    v = mulhi(h[r0] << 1, w0) + mulhi(h[r1] << 1, w1)
    y = requantize(v) + zero_point
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import mulhi, requantize, saturate
from tvm_passes.ops.base import Operator, TensorSpec, register
from tvm_passes.ops.elementwise import fixed_point, pre_shifted, reach

Array = NDArray[Any]

WEIGHT_BITS = 30


@dataclass(frozen=True)
class ResizeConfig:
    """Output size and format of ``resize_bilinear``.

    Attributes:
        size: output rows, columns.
        factors: whole factors of rows and columns, with which weights repeat themselves from source
            to source; 0 where there is none, or the corners are aligned.
        zero_x: zero point of the input.
        fraction: l, the pre-shift of the input; v has l - 1 fraction bits.
        left: static pre-shift of v, which saturates.
        multiplier: fixed-point multiplier from v to output steps.
        shift: its shift.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8 or int16.
    """

    size: tuple[int, int]
    factors: tuple[int, int]
    zero_x: int
    fraction: int
    left: int
    multiplier: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


def resize_config(
    scale: float,
    zero_point: int,
    out_scale: float,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
    *,
    extents: tuple[int, int],
    size: tuple[int, int],
    align_corners: bool,
    in_dtype: str,
) -> tuple[ResizeConfig, NDArray[np.int32], NDArray[np.int32]]:
    """Resizing from ``extents`` to ``size``, both rows, columns.

    Args:
        scale: real value of one step of x.
        zero_point: its zero point.
        out_scale: real value of one step of the output.
        out_zero_point: its zero point.
        qmin: least output code.
        qmax: greatest output code.
        dtype: dtype of the output.
        extents: input rows, columns.
        size: output rows, columns.
        align_corners: as in PyTorch's ``interpolate``.
        in_dtype: int8 or int16.

    Returns:
        The configuration, and the tables of rows and of columns, arguments 1 and 2 of the operator.

    Raises:
        LoweringError: a scale is out of range.
    """
    fraction = 30 - reach(in_dtype, zero_point).bit_length()
    left, multiplier, shift = fixed_point(scale / out_scale * 2.0 ** (1 - fraction))
    rows, columns = (
        0 if align_corners or outputs % inputs else outputs // inputs
        for inputs, outputs in zip(extents, size, strict=True)
    )
    config = ResizeConfig(
        size,
        (rows, columns),
        zero_point,
        fraction,
        left,
        multiplier,
        shift,
        out_zero_point,
        qmin,
        qmax,
        dtype,
    )
    down, across = (
        resize_table(inputs, outputs, align_corners)
        for inputs, outputs in zip(extents, size, strict=True)
    )
    return config, down, across


def resize_table(extent: int, size: int, align_corners: bool) -> NDArray[np.int32]:
    """Sources and weights along one axis.

    Args:
        extent: input extent.
        size: output extent.
        align_corners: as in PyTorch's ``interpolate``.

    Returns:
        int32 [4, size]: first source, second source, Q30 weight of the first and of the second.
    """
    position = np.arange(size, dtype=np.float64)
    if align_corners:
        source = position * ((extent - 1) / (size - 1) if size > 1 else 0.0)
    else:
        source = np.maximum((position + 0.5) * (extent / size) - 0.5, 0.0)
    first = np.minimum(np.floor(source), extent - 1)
    weight = np.floor((source - first) * 2.0**WEIGHT_BITS + 0.5)
    second = np.minimum(first + 1, extent - 1)
    return np.stack([first, second, 2**WEIGHT_BITS - weight, weight]).astype(np.int32)


def _reference(config: ResizeConfig, x: Array, rows: Array, columns: Array) -> Array:
    """x [N, H, W, C] int8 or int16, tables [4, OH] and [4, OW] -> [N, OH, OW, C]."""
    codes = (x.astype(np.int64) - config.zero_x) << config.fraction
    left, right, *weights = columns
    h = mulhi(codes[:, :, left], weights[0][:, None]) + mulhi(
        codes[:, :, right], weights[1][:, None]
    )
    top, bottom, *weights = rows
    v = mulhi(h[:, top] << 1, weights[0][:, None, None]) + mulhi(
        h[:, bottom] << 1, weights[1][:, None, None]
    )
    acc = pre_shifted(v, config.left)
    value = requantize(acc, config.multiplier, config.shift, config.left) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _infer(config: ResizeConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    batch, _, _, channels = specs[0].shape
    if [spec.shape for spec in specs[1:]] != [(4, extent) for extent in config.size]:
        raise LoweringError("resize_bilinear: its tables do not have the size of the output")
    return TensorSpec((batch, *config.size, channels), config.dtype)


register(Operator("resize_bilinear", ResizeConfig, _infer, _reference))
