"""Sums, products and changes of format against real arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.add import add_config, scaled_add_config
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.elementwise import mul_config, reach, requantize_config

add = OPERATORS["add"].reference
scaled_add = OPERATORS["scaled_add"].reference
mul = OPERATORS["mul"].reference
requantize = OPERATORS["requantize"].reference

scales = st.floats(1e-5, 0.5)
out_scales = st.floats(1e-3, 0.5)
dtypes = st.sampled_from(["int8", "int16"])
seeds = st.integers(0, 2**32 - 1)
HALF = 0.5 + 1e-4


def codes(seed: int, dtype: str, shape: tuple[int, ...] = (6, 50)) -> NDArray[np.signedinteger]:
    low, high = INT_RANGE[dtype]
    drawn = np.random.default_rng(seed).integers(low, high + 1, shape)
    drawn.reshape(-1)[:2] = low, high
    return drawn.astype(dtype)


def zero_of(dtype: str) -> int:
    return {"int8": 11, "uint8": 30}.get(dtype, 0)


@given(seeds, dtypes, dtypes, dtypes, scales, scales, out_scales)
def test_add_rounds_once(
    seed: int, a_type: str, b_type: str, out: str, sa: float, sb: float, so: float
) -> None:
    a, b = codes(seed, a_type), codes(seed + 1, b_type)
    za, zb, zo = zero_of(a_type), zero_of(b_type), zero_of(out)
    qmin, qmax = INT_RANGE[out]
    config = add_config(sa, za, sb, zb, so, zo, qmin, qmax, out, a_type, b_type)
    exact = ((a.astype(float) - za) * sa + (b.astype(float) - zb) * sb) / so + zo
    error = add(config, a, b) - np.clip(exact, qmin, qmax)
    assert np.abs(error).max() <= HALF + 2.0 ** (15 - config.shift)


@given(seeds, dtypes, scales, out_scales)
def test_scaled_add_takes_any_factor_per_channel(
    seed: int, dtype: str, sb: float, so: float
) -> None:
    a, b = codes(seed, dtype), codes(seed + 1, "int8")
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=50) * 10.0 ** rng.uniform(-6, 0, 50)
    za, zb = zero_of(dtype), zero_of("int8")
    config, ma, mb = scaled_add_config(
        factors, za, sb, zb, so, 0, -32767, 32767, "int16", dtype, "int8"
    )
    exact = ((a.astype(float) - za) * factors + (b.astype(float) - zb) * sb) / so
    got = scaled_add(config, a, b, ma, mb)
    # next to nothing unless a channel reaches far beyond the output's range
    error = got - np.clip(exact, -32767, 32767)
    assert np.abs(error).max() <= HALF + 2.0 ** (15 - config.shift)


@pytest.mark.parametrize(
    ("output", "a_type", "b_type", "least"),
    [
        ("int8", "int8", "int8", 21),
        ("int8", "int16", "int16", 21),
        ("int8", "int8", "int16", 21),
        ("int16", "int16", "int16", 14),
        ("int16", "int8", "int16", 14),  # a branch in 8 bits and the residual stream
    ],
)
def test_the_factors_of_a_usual_sum_are_good(
    output: str, a_type: str, b_type: str, least: int
) -> None:
    step = {"int8": 1 / 100, "int16": 1 / 25000}  # operands and sum reach about one
    form = (step[a_type], 0, -step[b_type], 0, step[output] * 1.3, 0)
    config = add_config(*form, *INT_RANGE[output], output, a_type, b_type)
    assert config.shift >= least


def test_a_sum_of_extremes_stays_in_int32() -> None:
    for sa, sb, so in [(1.0, 1.0, 1.0), (1.0, 1e-6, 1.0), (0.99998, 0.3, 1.0), (3e-5, 1.0, 256.0)]:
        config = add_config(sa, 0, -sb, 0, so, 0, *INT_RANGE["int16"], "int16", "int16", "int16")
        greatest = 32768 * (config.multiplier_a + abs(config.multiplier_b))
        assert greatest + (1 << (config.shift - 1)) < 2**31


@pytest.mark.parametrize(("dtype", "zero"), [("int16", 1), ("int32", 0)])
def test_a_sum_of_codes_that_int16_cannot_centre_is_refused(dtype: str, zero: int) -> None:
    with pytest.raises(LoweringError, match="int16 around 0"):
        add_config(0.1, 0, 0.1, zero, 0.1, 0, -128, 127, "int8", "int8", dtype)


@given(seeds, dtypes, dtypes, scales)
def test_mul_rounds_once(seed: int, a_type: str, b_type: str, so: float) -> None:
    a, b = codes(seed, a_type, (3, 4, 5)), codes(seed + 1, b_type, (4, 1))
    za, zb = zero_of(a_type), zero_of(b_type)
    config = mul_config(0.02, za, 0.003, zb, so, 2, -128, 127, "int8", a_type, b_type)
    exact = (a.astype(float) - za) * 0.02 * ((b.astype(float) - zb) * 0.003) / so + 2
    assert np.abs(mul(config, a, b) - np.clip(exact, -128, 127)).max() <= HALF


@given(
    seeds,
    st.sampled_from(["int8", "uint8", "int16", "int32"]),
    st.sampled_from(["int8", "uint8", "int16", "int32"]),
    st.floats(-30, 14.9),
)
def test_requantize_rounds_once_and_saturates(
    seed: int, source: str, target: str, exponent: float
) -> None:
    x, real = codes(seed, source), 2.0**exponent
    zx, zo = zero_of(source), zero_of(target)
    qmin, qmax = INT_RANGE[target]
    config = requantize_config(real, zx, 1.0, zo, qmin, qmax, target)
    got = requantize(config, x).astype(float)
    exact = (x.astype(float) - zx) * real + zo
    inside = np.abs(exact) < 2.0**29  # far outside, an int32 output saturates early
    error = np.abs(got - np.clip(exact, qmin, qmax))[inside].max(initial=0)
    assert error <= HALF + float(reach(source, zx)) * 2.0 ** (config.left - 32)
    assert np.all(got[exact >= 2.0**29] >= min(qmax, 2**28))


def test_operands_that_do_not_broadcast_are_refused() -> None:
    config = add_config(0.1, 0, 0.1, 0, 0.1, 0, -128, 127, "int8", "int8", "int8")
    with pytest.raises(LoweringError, match="broadcast"):
        OPERATORS["add"].infer(config, [TensorSpec((2, 3), "int8"), TensorSpec((4,), "int8")])


def test_products_that_overflow_are_refused() -> None:
    with pytest.raises(LoweringError, match="overflow"):
        mul_config(1, 0, 1, 0, 1, 0, -128, 127, "int8", "int32", "int8")


def test_a_negative_change_of_scale_is_refused() -> None:
    with pytest.raises(LoweringError, match="scale"):
        requantize_config(-0.5, 0, 1.0, 0, -128, 127, "int8")
