"""Pointwise functions of int16 codes by straight segments: ``pwl``.

The int16 axis is cut in equal segments of ``2^width`` codes around zero; the first and the last
extend to the ends of the axis, where the functions are straight. In a segment::

    y = rounding_shift(base[i] + slope[i] * (x - start_i), shift) + zero_point
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import rounding_shift, saturate
from tvm_passes.ops.base import Operator, TensorSpec, register, same_as
from tvm_passes.ops.pointwise import FUNCTIONS

Array = NDArray[Any]
Float = NDArray[np.float64]

CODES = np.arange(-32768, 32768)
SEGMENTS = (64, 128, 256)  # the least number that reaches the error bound is taken
WIDTHS = 6  # how many segment widths are tried
GOOD_ENOUGH = 0.45  # of a step, before the final rounding
SLOPE_MAX = 2**15 - 1
VALUE_MAX = 2.0**31 - 2.0**20


@dataclass(frozen=True)
class PwlConfig:
    """Segments and output format of ``pwl``; arguments x, slope [n] int16, base [n] int32.

    Attributes:
        width: a segment has ``2^width`` codes.
        shift: fraction bits of slope and base.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8 or int16.
    """

    width: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


@dataclass(frozen=True)
class PwlTables:
    """A fitted function.

    Attributes:
        config: configuration of the operator.
        slope: int16 [n].
        base: int32 [n].
        error: greatest distance from the exact function before the final rounding, in output
            steps, over all inputs whose output is not clamped.
    """

    config: PwlConfig
    slope: NDArray[np.int16]
    base: NDArray[np.int32]
    error: float


def pwl_tables(
    function: str,
    scale: float,
    out_scale: float,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
) -> PwlTables:
    """Fit a pointwise function of int16 codes.

    The number of segments is the least of 64, 128 and 256 whose error is below half a step (for
    int16 outputs usually none is, and 256 are taken), their width the best one.

    Args:
        function: a key of ``FUNCTIONS``.
        scale: real value of one step of the int16 input (zero point 0).
        out_scale: real value of one step of the output.
        out_zero_point: its zero point.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8 or int16.

    Raises:
        LoweringError: the function is too steep: it leaves the int32 range by far.
    """
    target = FUNCTIONS[function](CODES.astype(np.float64) * scale) / out_scale
    config = PwlConfig(0, 0, out_zero_point, qmin, qmax, dtype)
    for segments in SEGMENTS:
        whole = 17 - segments.bit_length()  # segments of this width cover the axis
        fits = [
            _fit(replace(config, width=width), target, segments)
            for width in range(whole, whole - WIDTHS, -1)
        ]
        best = min(fits, key=lambda fit: fit.error)
        if best.error < GOOD_ENOUGH:
            break
    return best


def segment_of(x: Array, width: int, segments: int) -> Array:
    """Segment index of int16 codes: segments of ``2^width`` codes around zero."""
    half = segments >> 1
    return np.clip(x >> width, -half, half - 1) + half


def _placed(config: PwlConfig, x: Array, segments: int) -> tuple[Array, Array]:
    """Segment index of int16 codes, and the distance from the segment's start."""
    index = segment_of(x, config.width, segments)
    return index, x - ((index - (segments >> 1)) << config.width)


def _fit(config: PwlConfig, target: Float, segments: int) -> PwlTables:
    """Straight lines through the ends of every segment, each centred on its greatest errors.

    Only outputs that are not clamped, and one step beyond, count.
    """
    low, high = config.qmin - config.zero_point, config.qmax - config.zero_point
    inside = (target >= low - 1) & (target <= high + 1)
    bounded = np.clip(target, low - 2, high + 2)
    index, offset = _placed(config, CODES, segments)
    bounds = np.searchsorted(index, np.arange(segments + 1))
    pieces = []
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        counted = start + np.flatnonzero(inside[start:end])
        pieces.append(counted if counted.size else np.array([start]))
    slope, base = np.zeros(segments), np.zeros(segments)
    for i, piece in enumerate(pieces):
        y, x = bounded[piece], offset[piece]
        slope[i] = (y[-1] - y[0]) / max(x[-1] - x[0], 1)
        base[i] = _centre(y - slope[i] * x)
    run = slope[index] * offset
    reach = max(np.abs(base).max(), np.abs(run).max(), np.abs(base[index] + run).max(), 1.0)
    shift = min(
        int(np.log2(SLOPE_MAX / max(np.abs(slope).max(), 2.0**-16))),
        int(np.log2(VALUE_MAX / reach)),
        24,
    )
    if shift < 1:
        raise LoweringError("a pointwise function that is too steep for its output scale")
    scaled = np.floor(slope * 2.0**shift + 0.5)
    for i, piece in enumerate(pieces):  # the rounded slope moves the line
        base[i] = _centre(bounded[piece] - scaled[i] * 2.0**-shift * offset[piece])
    fixed = np.floor(base * 2.0**shift + 0.5)
    line = (fixed[index] + scaled[index] * offset) * 2.0**-shift
    error = float(np.abs(np.clip(line, low, high) - np.clip(target, low, high)).max())
    return PwlTables(
        replace(config, shift=shift), scaled.astype(np.int16), fixed.astype(np.int32), error
    )


def _centre(rest: Float) -> float:
    return float(rest.max() + rest.min()) / 2.0


def _reference(config: PwlConfig, x: Array, slope: Array, base: Array) -> Array:
    """x int16 -> the shape of x."""
    index, offset = _placed(config, x.astype(np.int64), slope.size)
    line = base[index] + slope[index].astype(np.int64) * offset
    value = rounding_shift(line, config.shift) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _infer(config: PwlConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    if specs[0].dtype != "int16":
        raise LoweringError(f"pwl of {specs[0].dtype} codes: int16 is needed")
    return same_as()(config, specs)


register(Operator("pwl", PwlConfig, _infer, _reference))
