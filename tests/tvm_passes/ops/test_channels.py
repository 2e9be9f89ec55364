"""Changes of format with a factor per channel, against the real quotient."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.channels import requantize_channels_config, scale_channels_config

scale, requantize = (
    OPERATORS[name].reference for name in ("scale_channels", "requantize_channels")
)
EVERY = {
    dtype: np.arange(low, high + 1).astype(dtype)[:, None]
    for dtype, (low, high) in INT_RANGE.items()
    if dtype != "int32"
}
formats = st.sampled_from([("int8", 5), ("int8", -128), ("uint8", 200), ("int16", 0)])
outputs = st.sampled_from([(-100, -128, 127, "int8"), (0, -8, 7, "int8"), (3, 0, 255, "uint8")])
exponents = st.lists(st.floats(-14, 1), min_size=1, max_size=4)


def exact(steps: np.ndarray, dtype: str, zero_x: int, output: tuple[int, int, int, str]):
    real = (EVERY[dtype].astype(np.int64) - zero_x) * steps + output[0]
    return np.clip(real, *output[1:3])


@given(formats, outputs, exponents, st.integers(-1, 1))
def test_16_bit_lanes_keep_their_promise(
    form: tuple[str, int],
    output: tuple[int, int, int, str],
    octaves: list[float],
    sign: int,
) -> None:
    steps = 2.0 ** np.array(octaves)
    steps[0] *= sign  # a factor of zero and a negative one
    made = scale_channels_config(steps, *form, *output)
    if made is None:
        assert form[0] == "int16" and np.abs(steps).max() > 0.49
        return
    config, multiplier, error = made
    x = np.broadcast_to(EVERY[form[0]], (len(EVERY[form[0]]), len(steps)))
    codes = scale(config, x, multiplier)
    assert codes.dtype == output[3] and multiplier.dtype == np.int16
    assert np.abs(codes - exact(steps, *form, output)).max() <= 0.5 + error + 1e-9


def test_how_close_16_bit_lanes_are() -> None:
    """Factors that fill the range of the output from int16 codes, once alone and once with 4."""
    output = -128, -128, 127, "int8"
    for steps, greatest in [([255 / 32767], 0.01), ([255 / 32767, 4 * 255 / 32767], 0.05)]:
        made = scale_channels_config(np.array(steps), "int16", 0, *output)
        assert made is not None and made[2] < greatest


@given(formats, outputs, exponents, st.integers(-1, 1))
def test_32_bit_lanes_round_the_exact_value(
    form: tuple[str, int],
    output: tuple[int, int, int, str],
    octaves: list[float],
    sign: int,
) -> None:
    steps = 2.0 ** np.array(octaves)
    steps[0] *= sign
    config, multiplier, shift = requantize_channels_config(steps, *form, *output)
    x = np.broadcast_to(EVERY[form[0]], (len(EVERY[form[0]]), len(steps)))
    codes = requantize(config, x, multiplier, shift)
    assert np.abs(codes - exact(steps, *form, output)).max() <= 0.5 + 1e-4


def test_factors_of_any_size_in_one_tensor() -> None:
    steps = np.array([2.0**-10, 2.0**10, 0.7])
    made = requantize_channels_config(steps, "int16", 0, 0, -32767, 32767, "int16")
    x = np.array([[-32768, -5, 1024], [32767, 31, -1]], np.int16)
    codes = requantize(made[0], x, *made[1:])
    assert codes.tolist() == [[-32, -5120, 717], [32, 31744, -1]]
    long = requantize_channels_config(steps[:1], "int32", 0, 0, -128, 127, "int8")
    assert requantize(long[0], np.array([[2**16]], np.int32), *long[1:]).tolist() == [[64]]


@pytest.mark.parametrize(("steps", "dtype"), [(2.0**15, "int16"), (0.5, "int32")])
def test_factors_out_of_range_are_refused(steps: float, dtype: str) -> None:
    with pytest.raises(LoweringError, match="channels|room"):
        requantize_channels_config(np.array([steps]), dtype, 0, 0, -128, 127, "int8")


def test_factors_belong_to_the_last_axis() -> None:
    config, *factors = requantize_channels_config(np.ones(3), "int8", 0, 0, -128, 127, "int8")
    specs = [TensorSpec(factor.shape, "int32") for factor in factors]
    infer = OPERATORS["requantize_channels"].infer
    assert infer(config, [TensorSpec((5, 3), "int8"), *specs]) == TensorSpec((5, 3), "int8")
    with pytest.raises(LoweringError, match="factors .* for channels"):
        infer(config, [TensorSpec((3, 5), "int8"), *specs])
