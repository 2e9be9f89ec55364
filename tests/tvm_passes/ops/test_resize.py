"""Bilinear interpolation against its definition in double precision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.resize import ResizeConfig, resize_config

resize = OPERATORS["resize_bilinear"].reference


def matrix(extent: int, size: int, align_corners: bool) -> np.ndarray:
    """Interpolation along one axis as a matrix [size, extent], written from the definition."""
    result = np.zeros((size, extent))
    for i in range(size):
        if align_corners:
            source = i * (extent - 1) / (size - 1) if size > 1 else 0.0
        else:
            source = max((i + 0.5) * extent / size - 0.5, 0.0)
        first = min(int(source), extent - 1)
        result[i, first] += 1 - (source - first)
        result[i, min(first + 1, extent - 1)] += source - first
    return result


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["int8", "int16"]),
    st.tuples(*[st.integers(1, 9)] * 4),
    st.booleans(),
    st.floats(1e-3, 3.0),
)
def test_against_float(
    seed: int, dtype: str, extents: tuple[int, int, int, int], corners: bool, ratio: float
) -> None:
    height, width, rows, columns = extents
    low, high = INT_RANGE[dtype]
    x = np.random.default_rng(seed).integers(low, high + 1, (2, height, width, 3)).astype(dtype)
    zero, qmin, qmax = (7 if dtype == "int8" else 0), *INT_RANGE["int16"]
    config, *tables = resize_config(
        *(ratio, zero, 1.0, -5, qmin, qmax, "int16"),
        extents=(height, width),
        size=(rows, columns),
        align_corners=corners,
        in_dtype=dtype,
    )
    down, across = matrix(height, rows, corners), matrix(width, columns, corners)
    exact = np.einsum("rh,nhwc,kw->nrkc", down, x.astype(float) - zero, across) * ratio - 5
    got = resize(config, x, *tables)
    assert np.abs(got - np.clip(exact, qmin, qmax)).max() <= 0.501


def doubling(align_corners: bool) -> tuple[ResizeConfig, np.ndarray, np.ndarray]:
    return resize_config(
        *(0.1, 3, 0.1, 3, -128, 127, "int8"),
        extents=(7, 7),
        size=(14, 14),
        align_corners=align_corners,
        in_dtype="int8",
    )


@pytest.mark.parametrize("corners", [True, False])
def test_doubling_a_constant_map_changes_nothing(corners: bool) -> None:
    x = np.full((1, 7, 7, 4), -128, np.int8)
    config, *tables = doubling(corners)
    assert np.all(resize(config, x, *tables) == -128)


def test_whole_factors_repeat_their_weights() -> None:
    config, rows, _ = doubling(False)
    assert config.factors == (2, 2)
    quarters = rows[2:, 1:-1] / 2.0**30
    assert np.all(quarters == np.tile([[0.75, 0.25], [0.25, 0.75]], 6))
    assert doubling(True)[0].factors == (0, 0)


def test_tables_of_another_size_are_refused() -> None:
    config, *_ = doubling(False)
    specs = [TensorSpec((1, 7, 7, 4), "int8"), *[TensorSpec((4, 12), "int32")] * 2]
    with pytest.raises(LoweringError, match="tables"):
        OPERATORS["resize_bilinear"].infer(config, specs)
