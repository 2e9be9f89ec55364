"""Dynamic ReLU of codes against real arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.dynamic_relu import GATE_SCALE, dynamic_relu_config

relu, infer = OPERATORS["dynamic_relu"].reference, OPERATORS["dynamic_relu"].infer
dtypes = st.sampled_from(["int8", "int16"])


def gates(seed: int, channels: int) -> NDArray[np.int16]:
    """Both ends of the range, and the gate whose slope is 0."""
    drawn = np.random.default_rng(seed).integers(0, 32768, channels)
    drawn[:3] = 0, 32767, 16384
    return drawn.astype(np.int16)


@given(st.integers(0, 2**32 - 1), dtypes, dtypes, st.floats(1e-5, 0.5), st.floats(1e-3, 0.5))
def test_the_greater_slope_wins_and_is_rounded_once(
    seed: int, dtype: str, out: str, scale: float, out_scale: float
) -> None:
    low, high = INT_RANGE[dtype]
    x = np.random.default_rng(seed).integers(low, high + 1, (7, 40)).astype(dtype)
    x[0], x[1] = low, high
    first, second = gates(seed, 40), gates(seed + 1, 40)[::-1]
    zero, out_zero = (9 if dtype == "int8" else 0), (-5 if out == "int8" else 0)
    qmin, qmax = INT_RANGE[out]
    config = dynamic_relu_config(scale, zero, out_scale, out_zero, qmin, qmax, out, dtype)
    real = (x.astype(np.float64) - zero) * scale
    slopes = first * (2 * GATE_SCALE), second * (2 * GATE_SCALE) - 1
    exact = np.maximum(slopes[0] * real, slopes[1] * real) / out_scale + out_zero
    error = relu(config, x, first, second) - np.clip(exact, qmin, qmax)
    assert np.abs(error).max() <= 0.5 + 1e-4


def test_products_that_may_overflow_are_refused() -> None:
    with pytest.raises(LoweringError, match="int32 codes"):
        dynamic_relu_config(0.1, 0, 0.1, 0, -128, 127, "int8", "int32")


@pytest.mark.parametrize(
    ("gate", "dtype"), [((1, 4, 1), "int16"), ((2, 1, 5), "int16"), ((5,), "int8")]
)
def test_gates_must_be_int16_and_broadcast(gate: tuple[int, ...], dtype: str) -> None:
    config = dynamic_relu_config(0.1, 0, 0.1, 0, -128, 127, "int8", "int8")
    specs = [TensorSpec((1, 4, 5), "int8"), TensorSpec((5,), "int16"), TensorSpec(gate, dtype)]
    if (gate, dtype) == ((1, 4, 1), "int16"):
        assert infer(config, specs) == TensorSpec((1, 4, 5), "int8")
    else:
        with pytest.raises(LoweringError, match="dynamic_relu"):
            infer(config, specs)
