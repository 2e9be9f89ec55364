"""Logarithmic codes: rounding of the exponent, the code of zero, how many codes there are."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.quant.quantizers import from_json, logarithmic, to_json
from pipeline.quant.quantizers.logarithmic import (
    ADALOG,
    GELU_SHIFT,
    Logarithmic,
    LogarithmicQuantizer,
)

LOG2 = LogarithmicQuantizer(Logarithmic(4, 1, 1, fixed_scale=1.0), 1.0, 1)
LOG_SQRT2 = LogarithmicQuantizer(Logarithmic(4, 1, 2, fixed_scale=1.0), 1.0, 1)

tensors = st.lists(st.floats(0, 100, width=32), min_size=1, max_size=30).map(torch.tensor)


@st.composite
def quantizers(draw: st.DrawFn, shift: float | None = None) -> LogarithmicQuantizer:
    """AdaLog quantizers."""
    moved = draw(st.sampled_from([0.0, GELU_SHIFT])) if shift is None else shift
    form = Logarithmic(draw(st.integers(2, 8)), None, ADALOG, moved)
    scale = draw(st.floats(2.0**-10, 100, width=32))
    return LogarithmicQuantizer(form, scale, draw(st.integers(1, 137)))


def level(quantizer: LogarithmicQuantizer, x: Tensor) -> Tensor:
    """The code before it is rounded, float64; infinite where there is no logarithm."""
    positive = (x.double() + quantizer.format.shift).clamp(min=0)
    return -torch.log2(positive / quantizer.scale) * quantizer.format.r / quantizer.q


def test_log2_codes_are_exponents() -> None:
    x = torch.tensor([1.0, 0.5, 0.25, 2.0**-14, 2.0**-16, 0.0, 3.0])
    codes = LOG2.quantize(x)
    assert codes.dtype == torch.uint8
    assert codes.tolist() == [0, 1, 2, 14, 15, 15, 0]
    assert LOG2.dequantize(codes).tolist() == [1, 0.5, 0.25, 2.0**-14, 0, 0, 1]


def test_log_sqrt2_has_two_codes_in_an_octave() -> None:
    codes = torch.arange(16, dtype=torch.uint8)
    expected = [2 ** (-k / 2) for k in range(15)] + [0.0]
    assert LOG_SQRT2.dequantize(codes).tolist() == pytest.approx(expected, rel=1e-7)


@given(quantizers(), tensors)
@settings(deadline=None)
def test_codes_are_the_nearest_exponents(quantizer: LogarithmicQuantizer, x: Tensor) -> None:
    codes, exact = quantizer.quantize(x), level(quantizer, x)
    zero = 2**quantizer.format.bits - 1
    assert int(codes.max()) <= zero
    is_zero = codes == zero
    assert (exact[is_zero] > zero - 0.501).all()
    distance = (codes.double() - exact.clamp(min=0))[~is_zero].abs()
    assert (distance <= 0.501).all()


@given(quantizers(), tensors)
@settings(deadline=None)
def test_candidates_agree_with_quantizers_away_from_ties(
    quantizer: LogarithmicQuantizer, x: Tensor
) -> None:
    scale, q = torch.tensor([[quantizer.scale]] * 2), torch.tensor([[quantizer.q]] * 2).float()
    restored = logarithmic.fake(x, scale, q, quantizer.format)
    assert torch.equal(restored[0], restored[1])
    fraction = level(quantizer, x) % 1
    clear = ~((fraction - 0.5).abs() < 1e-2)
    torch.testing.assert_close(restored[0][clear], quantizer.fake(x)[clear], rtol=1e-4, atol=1e-6)


@given(quantizers(shift=0.0))
@settings(deadline=None)
def test_restored_values_have_the_codes_that_they_came_from(
    quantizer: LogarithmicQuantizer,
) -> None:
    codes = torch.arange(2**quantizer.format.bits, dtype=torch.uint8)
    values = quantizer.dequantize(codes)
    held = values > 2.0**-120  # smaller ones are not normal numbers of float32
    assert torch.equal(quantizer.quantize(values)[held], codes[held])


def test_shifted_values_of_zero_and_less_are_the_exact_zero() -> None:
    quantizer = LogarithmicQuantizer(Logarithmic(4, None, shift=GELU_SHIFT), 3.0, 20)
    codes = quantizer.quantize(torch.tensor([-GELU_SHIFT, -1.0]))
    assert codes.tolist() == [15, 15]
    assert quantizer.dequantize(codes).tolist() == pytest.approx([-GELU_SHIFT] * 2, abs=1e-7)


@pytest.mark.parametrize("bits", range(2, 9))
def test_there_are_as_many_values_as_codes(bits: int) -> None:
    quantizer = LogarithmicQuantizer(Logarithmic(bits, 5), 1.0, 5)
    sweep = torch.cat([torch.zeros(1), torch.exp2(torch.linspace(-40, 1, 5000))])
    assert len(quantizer.fake(sweep).unique()) == 2**bits


def test_names() -> None:
    names = [str(q.format) for q in (LOG2, LOG_SQRT2)] + [str(Logarithmic(3, None))]
    assert names == ["log2, 4 bits", "log-sqrt2, 4 bits", "adalog, 3 bits"]


def test_json_round_trip_is_exact() -> None:
    form = Logarithmic(3, None, ADALOG, GELU_SHIFT)
    for quantizer in (LOG_SQRT2, LogarithmicQuantizer(form, math.pi, 21)):
        assert from_json(json.loads(json.dumps(to_json(quantizer)))) == quantizer
