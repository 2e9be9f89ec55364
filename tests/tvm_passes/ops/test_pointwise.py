"""Tables of pointwise functions, AdaLog codes and their values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_passes.errors import LoweringError
from tvm_passes.ops.adalog import adalog_quantize_config
from tvm_passes.ops.base import OPERATORS
from tvm_passes.ops.pointwise import FUNCTIONS, LutConfig, adalog_table, lut_table

lut = OPERATORS["lut"].reference
adalog_quantize = OPERATORS["adalog_quantize"].reference

# numerator and denominator of the base's exponent: AdaLog's, log2 and log-sqrt2
bases = st.one_of(st.tuples(st.integers(1, 137), st.just(37)), st.sampled_from([(1, 1), (1, 2)]))

CODES8 = np.arange(-128, 128).astype(np.int8)
CODES16 = np.arange(-32768, 32768).astype(np.int16)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("scale", [0.01, 0.1])
def test_lut_is_exact_to_half_a_step(function: str, scale: float) -> None:
    table = lut_table(function, scale, 5, 0.05, -20, -128, 127, "int8")
    expected = np.clip(FUNCTIONS[function]((CODES8 - 5.0) * scale) / 0.05 - 20, -128, 127)
    assert np.abs(lut(LutConfig("int8"), CODES8, table) - expected).max() <= 0.5


def test_functions_have_their_known_values() -> None:
    x = np.array([-4.0, -3.0, 0.0, 3.0, 7.0, 800.0, -800.0])
    np.testing.assert_allclose(FUNCTIONS["hardswish"](x), [0, 0, 0, 3, 7, 800, 0])
    np.testing.assert_allclose(FUNCTIONS["hardsigmoid"](x), [0, 0, 0.5, 1, 1, 1, 0])
    np.testing.assert_allclose(FUNCTIONS["relu6"](x), [0, 0, 0, 3, 6, 6, 0])
    np.testing.assert_allclose(FUNCTIONS["sigmoid"](x)[[2, 5, 6]], [0.5, 1, 0])
    np.testing.assert_allclose(FUNCTIONS["silu"](x)[[2, 5, 6]], [0, 800, 0])
    gelu = FUNCTIONS["gelu"](np.array([1.0, -1.0]))
    np.testing.assert_allclose(gelu, [0.8413447, -0.1586553], atol=1e-7)


def test_lut_of_unsigned_codes_starts_at_the_first_entry() -> None:
    table = np.arange(256).astype(np.uint8)
    np.testing.assert_array_equal(lut(LutConfig("uint8"), table, table), table)


@given(bases, st.integers(1, 8))
def test_adalog_table_splits_into_two_planes(base: tuple[int, int], bits: int) -> None:
    q, r = base
    table, unit = adalog_table(q, r, bits)
    assert table.shape == (256,) and table[0] == 32639
    assert np.all(table[2**bits - 1 :] == 0)
    codes = np.arange(2**bits - 1)
    np.testing.assert_allclose(table[codes] * unit, 2.0 ** (-codes * q / r), atol=0.51 * unit)
    low = (table + 128) % 256 - 128
    high = (table - low) // 256
    assert np.all((-128 <= high) & (high <= 127))


@given(
    st.sampled_from([1e-4, 2e-3]),
    st.floats(0.2, 6.0),
    bases.filter(lambda base: base[0] * 10 >= base[1] * 3),
    st.integers(2, 8),
    st.sampled_from([0.0, 0.16997124254703522]),
)
def test_adalog_quantize_against_float(
    scale: float, out_scale: float, base: tuple[int, int], bits: int, shift: float
) -> None:
    q, r = base
    config = adalog_quantize_config(scale, 0, out_scale, q, r, bits, shift)
    codes = adalog_quantize(config, CODES16).astype(np.int64)
    real = -np.log2(np.maximum(CODES16 * scale + shift, 1e-300) / out_scale) * r / q
    expected = np.clip(np.floor(real + 0.5), 0, 2**bits - 1)
    boundary = np.abs(real + 0.5 - np.round(real + 0.5))
    wrong = codes != expected
    assert np.abs(codes - expected).max() <= 1
    # the shift is rounded to 2^-14 of a step of x, which only shows next to zero
    near_zero = np.abs(CODES16 * scale + shift) < 0.1 * scale
    assert np.all(boundary[wrong] <= 1e-4 * r / q + 5e-3 * near_zero[wrong])


def test_adalog_quantize_of_int8_codes_with_a_zero_point() -> None:
    config = adalog_quantize_config(0.1, -20, 10.0, 1, 1, 4)
    x = np.array([-128, -20, -19, 80, 127, 30], np.int8)
    assert adalog_quantize(config, x).tolist() == [15, 15, 7, 0, 0, 1]


def test_a_shift_out_of_reach_is_refused() -> None:
    with pytest.raises(LoweringError, match="shift"):
        adalog_quantize_config(1e-9, 0, 1.0, 1, 1, 4, shift=10.0)


@pytest.mark.parametrize(
    ("q", "r", "bits"), [(0, 37, 4), (1, 0, 4), (1, 65, 4), (65, 1, 4), (1, 2, 9)]
)
def test_codes_that_do_not_exist_are_refused(q: int, r: int, bits: int) -> None:
    with pytest.raises(LoweringError, match=rf"2\^\({q}/{r}\) and {bits} bits"):
        adalog_table(q, r, bits)
