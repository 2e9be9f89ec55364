"""Piecewise linear functions, over every int16 input."""

import numpy as np
import pytest

from tvm_passes.ops.base import OPERATORS
from tvm_passes.ops.pointwise import FUNCTIONS
from tvm_passes.ops.pwl import PwlTables, pwl_tables

pwl = OPERATORS["pwl"].reference
CODES = np.arange(-32768, 32768).astype(np.int16)

# function, greatest input, least and greatest output
CASES = [
    *(("silu", x, -0.28, y) for x, y in [(2, 1.7), (8, 8), (20, 20), (40, 5), (100, 100)]),
    *(("gelu", x, -0.17, y) for x, y in [(0.5, 0.35), (4, 4), (12, 6), (40, 40)]),
    *(("hardswish", x, -0.375, y) for x, y in [(4, 4), (8, 4), (20, 20)]),
    *(("sigmoid", limit, 0, 1) for limit in (4, 8, 20)),
    ("hardsigmoid", 10, 0, 1),
    ("relu6", 10, 0, 6),
]


def fit(
    function: str, limit: float, low: float, high: float, dtype: str
) -> tuple[PwlTables, float]:
    """The tables, and the greatest error after rounding and clamping."""
    scale = limit / 32767
    if dtype == "int8":
        out_scale = (high - low) / 255
        zero_point, qmin, qmax = round(-128 - low / out_scale), -128, 127
    else:
        out_scale, zero_point, qmin, qmax = max(-low, high) / 32767, 0, -32767, 32767
    tables = pwl_tables(function, scale, out_scale, zero_point, qmin, qmax, dtype)
    codes = pwl(tables.config, CODES, tables.slope, tables.base)
    exact = np.clip(FUNCTIONS[function](CODES * scale) / out_scale + zero_point, qmin, qmax)
    return tables, float(np.abs(codes - exact).max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_line_is_within_half_a_step_of_int8(case: tuple[str, float, float, float]) -> None:
    tables, error = fit(*case, "int8")
    assert tables.error < 0.5
    assert error <= 0.5 + tables.error


@pytest.mark.parametrize("case", CASES[:6], ids=str)
def test_smooth_functions_to_int16(case: tuple[str, float, float, float]) -> None:
    tables, error = fit(*case, "int16")
    assert error <= min(2.5, 0.52 + tables.error)


def test_slopes_use_their_16_bits() -> None:
    tables, _ = fit("silu", 8, -0.28, 8, "int8")
    assert tables.slope.dtype == np.int16
    assert np.abs(tables.slope.astype(np.int64)).max() >= 2**13
    assert tables.slope.size == tables.base.size == 64
