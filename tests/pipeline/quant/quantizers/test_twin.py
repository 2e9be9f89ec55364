"""Twin codes: each value takes the range that suits it, all values lie on the fine grid."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.quant.quantizers import from_json, to_json, twin
from pipeline.quant.quantizers.twin import GREATEST, Twin, TwinQuantizer

tensors = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30).map(torch.tensor)


@st.composite
def quantizers(draw: st.DrawFn, signed: bool | None = None) -> TwinQuantizer:
    """Quantizers whose integers fit int16."""
    form = Twin(draw(st.integers(2, 8)), draw(st.booleans()) if signed is None else signed)
    scale = draw(st.floats(2.0**-20, 10, width=32))
    return TwinQuantizer(form, scale, draw(st.integers(0, form.largest_ratio)))


@given(quantizers(), tensors)
@settings(deadline=None)
def test_codes_fit_their_bits_and_values_the_fine_grid(quantizer: TwinQuantizer, x: Tensor) -> None:
    codes = quantizer.quantize(x)
    assert codes.dtype == torch.uint8
    assert int(codes.max()) < 2**quantizer.format.bits
    steps = quantizer.dequantize(codes).double() / quantizer.unit
    assert (steps.abs() <= GREATEST * (1 + 1e-6)).all()
    torch.testing.assert_close(steps, steps.round(), rtol=1e-6, atol=0)


@given(quantizers(), tensors)
@settings(deadline=None)
def test_candidates_are_quantizers_side_by_side(quantizer: TwinQuantizer, x: Tensor) -> None:
    other = TwinQuantizer(quantizer.format, quantizer.scale, 0)
    scale = torch.tensor([[quantizer.scale]] * 2)
    ratio = torch.tensor([[quantizer.ratio], [0]])
    restored = twin.fake(x, scale, ratio, quantizer.format)
    assert torch.equal(restored, torch.stack([quantizer.fake(x), other.fake(x)]))


@given(quantizers(signed=False), tensors)
@settings(deadline=None)
def test_small_values_have_fine_steps_and_others_coarse_ones(
    quantizer: TwinQuantizer, x: Tensor
) -> None:
    x, half, fine = x.abs(), quantizer.format.half, quantizer.scale
    coarse = fine * 2**quantizer.ratio
    x = x.clamp(max=(half - 1) * coarse)
    error = (quantizer.fake(x) - x).abs()
    small = x < (half - 0.51) * fine
    assert (error[small] <= fine * 0.50001).all()
    assert (error <= coarse * 0.50001).all()


@given(quantizers(signed=True), tensors)
@settings(deadline=None)
def test_negative_values_have_fine_steps_and_positive_ones_coarse_ones(
    quantizer: TwinQuantizer, x: Tensor
) -> None:
    most, fine = quantizer.format.half - 1, quantizer.scale
    coarse = fine * 2**quantizer.ratio
    x = x.clamp(-most * fine, most * coarse)
    error = (quantizer.fake(x) - x).abs()
    assert (error[x < 0] <= fine * 0.50001).all()
    assert (error <= coarse * 0.50001).all()


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("signed", [False, True])
def test_two_ranges_share_the_codes(bits: int, signed: bool) -> None:
    form = Twin(bits, signed)
    quantizer = TwinQuantizer(form, 1.0, form.largest_ratio)
    values = quantizer.dequantize(torch.arange(2**bits, dtype=torch.uint8))
    sweep = quantizer.fake(torch.linspace(-GREATEST, GREATEST, 4 * GREATEST + 1))
    # Zero belongs to both ranges.
    assert len(values.unique()) == 2**bits - 1 == len(sweep.unique())
    assert values.abs().max() <= GREATEST < 2 * values.abs().max()


@given(quantizers())
@settings(deadline=None)
def test_json_round_trip_is_exact(quantizer: TwinQuantizer) -> None:
    assert from_json(json.loads(json.dumps(to_json(quantizer)))) == quantizer
