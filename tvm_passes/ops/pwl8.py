"""Pointwise functions from int16 to 8-bit codes by straight segments, in 16-bit lanes: ``pwl8``.

The int16 axis is cut in equal segments of ``2^width`` codes around zero; the first and the last
extend to the ends of the axis. In segment i::

    y = rounding_shift(saturate(base[i] + mulhrs(slope[i], saturate(x << left))), shift)

The lines run through the whole axis, not from the start of their segment, so that a kernel looks
up two 16-bit numbers, multiplies and adds: ``tbl`` and ``sqrdmulh``, ``vpermi2w`` and
``vpmulhrsw``. The zero point is part of ``base``. With a shift of 0 the lines themselves are the
output, int16 codes for a step that is still to follow (``pwl8_lines``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import INT_RANGE, mulhrs, rounding_shift, saturate
from tvm_passes.ops.base import Operator, TensorSpec, register, same_as
from tvm_passes.ops.pointwise import FUNCTIONS
from tvm_passes.ops.pwl import CODES, segment_of

Array = NDArray[Any]
Float = NDArray[np.float64]

SEGMENTS = (64, 128)  # registers hold tables of 64; the least that reaches the bound is taken
WIDTHS = 7  # how many segment widths are tried
GOOD_ENOUGH = 0.3  # of a step, before the final rounding
LIMIT = 2**15 - 1
FINEST = 7  # fraction bits of the lines: 8-bit codes and as many bits again, without a sign to lose


@dataclass(frozen=True)
class Pwl8Config:
    """Segments and output format of ``pwl8``; arguments x, slope [n] int16, base [n] int16.

    Attributes:
        width: a segment has ``2^width`` codes.
        left: pre-shift of x, above 0 for functions so steep that they are flat where it saturates.
        shift: fraction bits of the lines.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8 or uint8; int16 where the shift is 0.
    """

    width: int
    left: int
    shift: int
    qmin: int
    qmax: int
    dtype: str


@dataclass(frozen=True)
class Pwl8Tables:
    """A fitted function.

    Attributes:
        config: configuration of the operator.
        slope: int16 [n].
        base: int16 [n].
        error: greatest distance of the line from the exact function, before the final rounding and
            in output steps, over all inputs.
    """

    config: Pwl8Config
    slope: NDArray[np.int16]
    base: NDArray[np.int16]
    error: float


def pwl8_tables(
    function: str,
    scale: float,
    out_scale: float,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
) -> Pwl8Tables:
    """Fit a function of int16 codes with ``scale``.

    Args:
        function: a key of ``FUNCTIONS``.
        scale: real value of one step of x.
        out_scale: real value of one step of the output.
        out_zero_point: its zero point.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8 or uint8.

    Returns:
        The best tables found; the caller decides whether their ``error`` is small enough.

    Raises:
        LoweringError: ``dtype`` has more than 8 bits.
    """
    if INT_RANGE[dtype][1] > 255:
        raise LoweringError(f"pwl8 to {dtype}: only 8-bit codes are possible")
    exact = FUNCTIONS[function](CODES.astype(np.float64) * scale) / out_scale + out_zero_point
    target = np.clip(exact, qmin, qmax)
    form = Pwl8Config(0, 0, FINEST, qmin, qmax, dtype)
    best: Pwl8Tables | None = None
    for segments in SEGMENTS:
        for candidate in _candidates(form, exact, segments):
            tables = _fit(candidate, exact, target, segments)
            if best is None or tables.error < best.error:
                best = tables
        if best is not None and best.error < GOOD_ENOUGH:
            break
    assert best is not None
    return best


def pwl8_lines(
    function: str, scale: float, greatest: float, segments: int
) -> tuple[Pwl8Tables, float]:
    """Fit lines whose values are the output, int16 codes with zero point 0.

    Args:
        function: a key of ``FUNCTIONS``.
        scale: real value of one step of x.
        greatest: outputs beyond this are as good as this, of either sign.
        segments: 64 or 128.

    Returns:
        The best tables found, and the real value of one step of the output.
    """
    exact = FUNCTIONS[function](CODES.astype(np.float64) * scale)
    inside = np.abs(exact[:-1]) < greatest
    steepest = float(np.abs(np.diff(exact))[inside].max(initial=0.0))
    whole = 17 - segments.bit_length()  # segments of this width cover the axis
    found: list[tuple[Pwl8Tables, float]] = []
    for left in range(16):  # the pre-shift lets a slope exceed one step of the output
        unit = max(greatest / LIMIT, steepest * 2.0**-left)
        target = np.clip(exact / unit, -LIMIT - 1, LIMIT)
        for width in range(whole, whole - WIDTHS, -1):
            config = Pwl8Config(width, left, 0, -LIMIT - 1, LIMIT, "int16")
            found.append((_fit(config, exact / unit, target, segments), unit))
        if unit <= greatest / LIMIT:
            break
    return min(found, key=lambda fit: fit[0].error * fit[1])


def _candidates(form: Pwl8Config, exact: Float, segments: int) -> Iterator[Pwl8Config]:
    """Widths, and for each the ways to make the steepest slope fit: a pre-shift, fewer bits."""
    whole = 17 - segments.bit_length()  # segments of this width cover the axis
    inside = (exact[:-1] > form.qmin - 1) & (exact[:-1] < form.qmax + 1)
    steepest = float(np.abs(np.diff(exact))[inside].max(initial=0.0))
    excess = max(int(np.ceil(np.log2(max(steepest * 2.0**FINEST, 2.0**-20)))), 0)
    for width in range(whole, whole - WIDTHS, -1):
        for left in range(min(excess, 15) + 1):
            if excess - left < FINEST:
                yield replace(form, width=width, left=left, shift=FINEST - (excess - left))


def _fit(config: Pwl8Config, exact: Float, target: Float, segments: int) -> Pwl8Tables:
    """Lines through the ends of every segment, each centred on its greatest errors.

    Only outputs that are not clamped, and one step beyond, count.
    """
    index = segment_of(CODES, config.width, segments)
    counted = np.flatnonzero((exact >= config.qmin - 1) & (exact <= config.qmax + 1))
    edges = np.searchsorted(index[counted], np.arange(segments + 1))
    bounds = np.searchsorted(index, np.arange(segments))
    slope, base = np.zeros(segments, np.int64), np.zeros(segments, np.int64)
    bounded = np.clip(exact, config.qmin - 2, config.qmax + 2)
    reach = saturate(CODES << config.left, -LIMIT - 1, LIMIT, "int16").astype(np.int64)
    for i in range(segments):
        piece = counted[edges[i] : edges[i + 1]]
        if not piece.size:
            piece = bounds[i : i + 1]
        y = bounded[piece] * 2.0**config.shift
        run = max(int(piece[-1] - piece[0]), 1) * 2.0**config.left
        slope[i] = np.clip(np.floor((y[-1] - y[0]) / run * 2.0**15 + 0.5), -LIMIT, LIMIT)
        rest = y - mulhrs(slope[i], reach[piece])
        base[i] = np.clip(np.floor((rest.max() + rest.min()) / 2 + 0.5), -LIMIT, LIMIT)
    line = _line(config, CODES, slope, base) * 2.0**-config.shift
    error = float(np.abs(np.clip(line, config.qmin, config.qmax) - target).max())
    return Pwl8Tables(config, slope.astype(np.int16), base.astype(np.int16), error)


def _line(config: Pwl8Config, x: Array, slope: Array, base: Array) -> Array:
    index = segment_of(x, config.width, slope.size)
    reach = saturate(x << config.left, -LIMIT - 1, LIMIT, "int16")
    line = base[index].astype(np.int64) + mulhrs(slope[index], reach)
    return saturate(line, -LIMIT - 1, LIMIT, "int16").astype(np.int64)


def _reference(config: Pwl8Config, x: Array, slope: Array, base: Array) -> Array:
    """x int16 -> the shape of x."""
    line = _line(config, x.astype(np.int64), slope, base)
    codes = rounding_shift(line, config.shift) if config.shift else line
    return saturate(codes, config.qmin, config.qmax, config.dtype)


def _infer(config: Pwl8Config, specs: Sequence[TensorSpec]) -> TensorSpec:
    if specs[0].dtype != "int16":
        raise LoweringError(f"pwl8 of {specs[0].dtype} codes: int16 is needed")
    return same_as()(config, specs)


register(Operator("pwl8", Pwl8Config, _infer, _reference))
