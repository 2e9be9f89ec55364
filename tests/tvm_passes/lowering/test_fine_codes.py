"""Functions in fine codes, and the distance of outputs made from them."""

import numpy as np
import pytest

from tvm_passes.lowering.fine_codes import spread, ways
from tvm_passes.ops.pointwise import FUNCTIONS


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_ways_end_with_exact_ones(dtype: str) -> None:
    info = np.iinfo(dtype)
    scale = 8.0 / info.max
    exact = FUNCTIONS["gelu"](np.arange(info.min, info.max + 1.0) * scale)
    found = list(ways("gelu", exact, scale, dtype, 4.0))
    names = ["pwl8", "pwl8", "pwl", "lut"] if dtype == "int16" else ["lut", "lut"]
    assert [way.name for way in found] == names and found[-1].dtype == "int32"
    errors = []
    for way in found:
        limit = np.inf if way.dtype == "int32" else 4.0
        values = np.clip(way.values * way.unit, -limit, limit)
        errors.append(np.abs(values - np.clip(exact, -limit, limit)).max())
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.02 and errors[-1] < 1e-8


def test_the_spread_counts_what_is_not_clamped() -> None:
    exact = np.array([-3.0, 0.0, 1.0, 100.0])
    other = exact + np.array([0.5, 0.0, 0.01, 7.0])
    assert spread(other, exact, np.array([10.0]), (0, 255)) == pytest.approx(0.1)
    assert spread(other, exact, np.array([-10.0]), (0, 255)) == pytest.approx(5.0)
    assert spread(other, exact, np.array([1.0, 10.0]), (0, 255)) == pytest.approx(7.0)
    many = np.geomspace(1.0, 10.0, 100)
    worst = max(spread(other, exact, np.array([one]), (0, 255)) for one in many)
    assert worst <= spread(other, exact, many, (0, 255)) <= worst * 2.0**0.25
    assert spread(other, exact, np.zeros(3), (0, 255)) == 0.0
