"""Values of twin codes against the float definition, over every int16 input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_passes.errors import LoweringError
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.qdq import DequantizeTwinConfig, QuantizeTwinConfig
from tvm_passes.ops.twin import twin_config, twin_range

twin, quantize, dequantize = (
    OPERATORS[name].reference for name in ("twin", "quantize_twin", "dequantize_twin")
)
CODES = np.arange(-32768, 32768).astype(np.int16)

# bits, greatest m that fits int16
formats = st.integers(2, 8).flatmap(
    lambda bits: st.tuples(st.just(bits), st.integers(0, min(16 - bits, 12)))
)


def exact(x: np.ndarray, scale: float, m: int, bits: int, signed: bool) -> np.ndarray:
    """Values in fine steps."""
    codes = quantize(QuantizeTwinConfig(m, bits, signed, "x"), x, np.float64(scale))
    return dequantize(DequantizeTwinConfig(m, bits, signed), codes, np.float64(1.0))


@given(formats, st.booleans(), st.floats(-9, 6))
def test_values_differ_only_next_to_a_boundary(
    form: tuple[int, int], signed: bool, ratio: float
) -> None:
    bits, m = form
    real = 2.0**ratio  # of a step of x, in fine steps
    got = twin(twin_config(real, 1.0, m, bits, signed), CODES)
    assert got.dtype == np.int16
    expected = exact(CODES * real, 1.0, m, bits, signed)
    low, high = twin_range(m, bits, signed)
    assert low <= got.min() and got.max() <= high
    # a hundredth of a step away the definition itself has this value
    for step in (1.0, 2.0**m):
        for side in (-0.01, 0.01):
            near = exact(CODES * real + side * step, 1.0, m, bits, signed)
            got = np.where(near == got, expected, got)
    # next to zero and to the end of a range the sign, or the range, may change with it
    wrong = got != expected
    edges = np.array([0.0, 2.0 ** (bits - 1) - 0.5])
    distance = np.abs(CODES[wrong, None] * real - edges).min(1, initial=np.inf)
    assert np.all(distance < 0.01)


def test_both_ranges_by_hand() -> None:
    x = np.array([-9, -3, -1, 0, 1, 3, 4, 5, 6, 100], np.int16)
    unsigned = twin_config(1.0, 1.0, 2, 3, signed=False)
    assert twin(unsigned, x).tolist() == [0, 0, 0, 0, 1, 3, 4, 4, 8, 12]
    signed = twin_config(1.0, 1.0, 2, 3, signed=True)
    assert twin(signed, x).tolist() == [-3, -3, -1, 0, 0, 4, 4, 4, 8, 12]


@pytest.mark.parametrize("signed", [False, True])
def test_scales_from_one_end_to_the_other(signed: bool) -> None:
    """Steps so fine that x saturates, and so coarse that nothing is left of it."""
    x = np.array([-32768, -1, 0, 1, 2, 3, 4, 32767], np.int16)
    below = -127 if signed else 0
    near = twin(twin_config(2.0**7, 1.0, 2, 8, signed), x)
    assert near.tolist() == [below, below, 0, 128, 256, 384, 508, 508]
    far = twin(twin_config(2.0**30, 1.0, 2, 8, signed), x)
    assert far.tolist() == [below, below, 0, 508, 508, 508, 508, 508]
    assert not np.any(twin(twin_config(2.0**-20, 1.0, 2, 8, signed), x))


@pytest.mark.parametrize(("m", "bits"), [(-1, 8), (9, 8), (0, 1), (0, 9), (15, 3)])
def test_formats_that_do_not_exist_are_refused(m: int, bits: int) -> None:
    with pytest.raises(LoweringError, match=f"twin codes of {bits} bits .* 2\\^{m}"):
        twin_config(1.0, 1.0, m, bits, signed=True)


def test_only_int16_codes() -> None:
    with pytest.raises(LoweringError, match="int16 is needed"):
        OPERATORS["twin"].infer(twin_config(1.0, 1.0, 2, 8, True), [TensorSpec((3,), "int8")])
