"""Non-linear functions in codes that are finer than the output's, and how far off they are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from tvm_passes.lowering.quantized import Float
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import OPERATORS, call
from tvm_passes.ops.pointwise import LutConfig
from tvm_passes.ops.pwl import pwl_tables
from tvm_passes.ops.pwl8 import SEGMENTS, pwl8_lines

FINENESS, MOST_FACTORS = 2.0 ** (1 / 8), 32  # of the factors that a spread is computed for
WORD, LONG = 2.0**15 - 1, 2.0**30  # greatest codes, of int16 and of int32


@dataclass(frozen=True)
class FineCodes:
    """A function in codes that are finer than those of the output.

    Attributes:
        name: the operator.
        emit: its call on the input's codes.
        values: its codes of every input.
        unit: real value of one of their steps.
        dtype: their dtype.
    """

    name: str
    emit: Callable[[relax.Expr], relax.Call]
    values: NDArray[np.signedinteger]
    unit: float
    dtype: str


def ways(
    function: str, exact: Float, scale: float, dtype: str, greatest: float
) -> Iterator[FineCodes]:
    """The function in fine codes, cheap ones first, exact ones last.

    Lines in 16-bit lanes, lines in 32-bit lanes and a table of int32 for int16 codes; a table of
    int16 and one of int32 for 8-bit ones.

    Args:
        function: a key of ``FUNCTIONS``.
        exact: its values of all codes of ``dtype``, least code first.
        scale: real value of one step of the input.
        dtype: of the input, int8, uint8 or int16; int16 codes have no zero point.
        greatest: values beyond this are as good as this, of either sign.
    """
    greatest = max(min(float(np.abs(exact).max()), greatest), 1e-30)
    if dtype == "int16":
        for segments in SEGMENTS:
            lines, unit = pwl8_lines(function, scale, greatest, segments)
            yield _lines("pwl8", lines.config, (lines.slope, lines.base), unit)
        unit = greatest / WORD
        fitted = pwl_tables(function, scale, unit, 0, -32767, 32767, "int16")
        yield _lines("pwl", fitted.config, (fitted.slope, fitted.base), unit)
    else:
        yield _table(exact, greatest / WORD, "int16", dtype)
    yield _table(exact, float(np.abs(exact).max()) / LONG or 1.0, "int32", dtype)


def _lines(
    name: str, config: object, tables: tuple[NDArray[np.signedinteger], ...], unit: float
) -> FineCodes:
    every = np.arange(-32768, 32768).astype(np.int16)
    values = OPERATORS[name].reference(config, every, *tables)
    return FineCodes(name, lambda codes: call(name, config, codes, *tables), values, unit, "int16")


def _table(exact: Float, unit: float, dtype: str, in_dtype: str) -> FineCodes:
    """Exact to half a step, of which int32 has more than any two factors can tell apart."""
    low, high = INT_RANGE[dtype]
    values = np.clip(np.floor(exact / unit + 0.5), low + 1, high).astype(dtype)
    config = LutConfig(dtype)
    return FineCodes("lut", lambda codes: call("lut", config, codes, values), values, unit, dtype)


def spread(approximate: Float, exact: Float, steps: Float, limits: tuple[int, int]) -> float:
    """How far outputs before rounding may be apart, in steps, clamped as they will be.

    Of many factors a geometric progression stands for all: clamping to a range around zero never
    moves two values apart, so between two of its terms the distance grows by less than their ratio.

    Args:
        approximate: real values of every input.
        exact: what they stand for.
        steps: of the output that the real value 1 makes, of every channel.
        limits: least and greatest output, at most and at least 0.
    """
    worst = 0.0
    for sign in (1.0, -1.0):
        chosen, slack = np.unique(steps[steps * sign > 0] * sign), 1.0
        if chosen.size > MOST_FACTORS:
            octaves, slack = float(np.log2(chosen[-1] / chosen[0])), FINENESS
            chosen = chosen[0] * FINENESS ** np.arange(octaves / np.log2(FINENESS) + 1)
        for factor in chosen * sign:
            far = np.clip(approximate * factor, *limits) - np.clip(exact * factor, *limits)
            worst = max(worst, float(np.abs(far).max()) * slack)
    return worst
