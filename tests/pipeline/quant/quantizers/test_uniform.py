"""Uniform codes: what is restored, how many codes there are, how they are stored."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.quant.formats import int8
from pipeline.quant.quantizers import from_json, to_json, uniform
from pipeline.quant.quantizers.uniform import Uniform, UniformQuantizer

scales = st.floats(2.0**-20, 100, width=32)
tensors = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30).map(torch.tensor)


@st.composite
def quantizers(draw: st.DrawFn, most_bits: int = 8) -> UniformQuantizer:
    """Quantizers with one scale."""
    form = int8(draw(st.integers(2, most_bits)), draw(st.booleans()))
    zero = 0 if form.symmetric else draw(st.integers(form.qmin, form.qmax))
    return UniformQuantizer(form, (draw(scales),), (zero,))


@given(quantizers(), tensors)
@settings(deadline=None)
def test_fake_is_dequantized_codes(quantizer: UniformQuantizer, x: Tensor) -> None:
    assert torch.equal(quantizer.fake(x), quantizer.dequantize(quantizer.quantize(x)))


@given(quantizers(), tensors)
@settings(deadline=None)
def test_codes_stay_in_their_range(quantizer: UniformQuantizer, x: Tensor) -> None:
    codes, form = quantizer.quantize(x), quantizer.format
    assert codes.dtype == torch.int32
    assert form.qmin <= int(codes.min()) and int(codes.max()) <= form.qmax


@given(quantizers(), tensors)
@settings(deadline=None)
def test_values_in_range_move_by_half_a_step_at_most(
    quantizer: UniformQuantizer, x: Tensor
) -> None:
    form, (scale,), (zero,) = quantizer.format, quantizer.scale, quantizer.zero_point
    inside = x.clamp((form.qmin - zero) * scale, (form.qmax - zero) * scale)
    assert ((quantizer.fake(inside) - inside).abs() <= scale * 0.50001).all()


@given(st.lists(quantizers(), min_size=1, max_size=5), tensors)
@settings(deadline=None)
def test_candidates_are_quantizers_side_by_side(found: list[UniformQuantizer], x: Tensor) -> None:
    form = int8(8)
    found = [UniformQuantizer(form, one.scale, one.zero_point) for one in found]
    scale = torch.tensor([one.scale for one in found])
    zero = torch.tensor([one.zero_point for one in found])
    restored = uniform.fake(x, scale, zero, form)
    assert torch.equal(restored, torch.stack([one.fake(x) for one in found]))


def test_a_scale_per_index_of_an_axis_is_a_quantizer_per_slice() -> None:
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    scale, zero = (0.1, 0.2, 0.05), (0, 3, -4)
    whole = UniformQuantizer(int8(4), scale, zero, axis=1)
    assert not whole.is_per_tensor
    for index in range(3):
        one = UniformQuantizer(int8(4), scale[index : index + 1], zero[index : index + 1])
        assert torch.equal(whole.fake(x)[:, index], one.fake(x[:, index]))
        assert torch.equal(whole.quantize(x)[:, index], one.quantize(x[:, index]))


def test_halves_are_rounded_up() -> None:
    quantizer = UniformQuantizer(int8(8), (0.5,), (0,))
    assert quantizer.quantize(torch.tensor([0.25, -0.25, 0.75, -0.75])).tolist() == [1, 0, 2, -1]


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_code_is_used(bits: int) -> None:
    sweep = torch.linspace(-300, 300, 6001)
    for form, levels in ((int8(bits), 2**bits), (int8(bits, symmetric=True), 2**bits - 1)):
        codes = UniformQuantizer(form, (1.0,), (0,)).quantize(sweep)
        assert len(codes.unique()) == levels
        assert form.bits == bits


@given(quantizers(most_bits=7), tensors)
@settings(deadline=None)
def test_few_bits_are_stored_with_zero_point_0_and_equal_values(
    quantizer: UniformQuantizer, x: Tensor
) -> None:
    stored = quantizer.stored()
    codes = stored.quantize(x)
    assert stored.zero_point == (0,)
    assert stored.format.bits == quantizer.format.bits
    assert torch.equal(codes.to(torch.int8).int(), codes)
    assert torch.equal(stored.dequantize(codes), quantizer.fake(x))


def test_8_bits_with_a_zero_point_are_stored_as_they_are() -> None:
    quantizer = UniformQuantizer(int8(8), (0.1,), (5,))
    assert quantizer.stored() is quantizer


def test_zero_points_that_differ_are_stored_as_they_are() -> None:
    quantizer = UniformQuantizer(int8(4), (0.1, 0.2), (1, 2), axis=0)
    assert quantizer.stored() is quantizer


@pytest.mark.parametrize(
    "quantizer",
    [
        UniformQuantizer(int8(4), (0.1, 1 / 3), (1, -2), axis=2),
        UniformQuantizer(Uniform("int8", -128, 127, fixed=(1 / 256, -128)), (1 / 256,), (-128,)),
    ],
    ids=["per channel", "fixed"],
)
def test_json_round_trip_is_exact(quantizer: UniformQuantizer) -> None:
    assert from_json(json.loads(json.dumps(to_json(quantizer)))) == quantizer
