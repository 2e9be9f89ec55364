"""Functions by straight segments in 16-bit lanes, over every int16 input."""

import numpy as np
import pytest

from tvm_passes.errors import LoweringError
from tvm_passes.ops.base import OPERATORS
from tvm_passes.ops.pointwise import FUNCTIONS
from tvm_passes.ops.pwl8 import SEGMENTS, Pwl8Tables, pwl8_lines, pwl8_tables

pwl8 = OPERATORS["pwl8"].reference
CODES = np.arange(-32768, 32768).astype(np.int16)

# function, greatest input, least and greatest output
SMOOTH = [
    *(("silu", x, -0.28, y) for x, y in [(2, 1.7), (8, 8), (20, 20), (40, 5), (300, 300)]),
    *(("gelu", x, -0.17, y) for x, y in [(0.5, 0.35), (4, 4), (12, 6), (120, 40)]),
    *(("hardswish", x, -0.375, y) for x, y in [(4, 4), (8, 4), (20, 20)]),
    *(("sigmoid", limit, 0, 1) for limit in (4, 8, 20, 100)),
]


def fit(function: str, limit: float, low: float, high: float) -> Pwl8Tables:
    step = (high - low) / 255
    return pwl8_tables(function, limit / 32767, step, round(-128 - low / step), -128, 127, "int8")


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_codes_are_rounded_from_within_a_third_of_a_step(
    case: tuple[str, float, float, float],
) -> None:
    function, limit, low, high = case
    tables = fit(*case)
    assert tables.error < 0.3
    assert tables.slope.size == tables.base.size == 64
    step = (high - low) / 255
    zero_point = round(-128 - low / step)
    exact = FUNCTIONS[function](CODES * (limit / 32767)) / step + zero_point
    codes = pwl8(tables.config, CODES, tables.slope, tables.base)
    assert codes.dtype == np.int8
    assert np.abs(codes - np.clip(exact, -128, 127)).max() <= 0.5 + tables.error + 1e-9


def test_the_error_that_is_promised_is_the_greatest_over_all_codes() -> None:
    kink = fit("relu6", 10, 0, 6)
    assert kink.error > 0.5  # the caller must take finer segments
    assert fit("relu6", 6, 0, 6).error < 0.1


def test_clamped_codes_stay_in_their_range() -> None:
    tables = pwl8_tables("silu", 8 / 32767, 8 / 255, -100, -100, 80, "int8")
    codes = pwl8(tables.config, CODES, tables.slope, tables.base)
    assert (codes.min(), codes.max()) == (-100, 80)


def test_only_8_bit_codes() -> None:
    with pytest.raises(LoweringError, match="only 8-bit codes"):
        pwl8_tables("silu", 1.0, 1.0, 0, -32768, 32767, "int16")


@pytest.mark.parametrize("segments", SEGMENTS)
@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_lines_are_int16_codes_of_their_own(
    case: tuple[str, float, float, float], segments: int
) -> None:
    function, limit, low, high = case
    greatest = max(high, -low)
    lines, unit = pwl8_lines(function, limit / 32767, greatest, segments)
    exact = np.clip(FUNCTIONS[function](CODES * (limit / 32767)), -greatest, greatest)
    codes = pwl8(lines.config, CODES, lines.slope, lines.base)
    assert codes.dtype == np.int16 and lines.slope.size == segments
    got = np.clip(codes * unit, -greatest, greatest)
    assert np.abs(got - exact).max() <= lines.error * unit * (1 + 1e-9)
    assert lines.error * unit < (0.003 if segments == 64 else 0.0015) * greatest
