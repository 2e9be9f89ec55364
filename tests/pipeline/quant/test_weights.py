"""Weight quantization: codes, scales, channels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.quant.weights import QuantizedWeight, WeightFormat, quantize_weight


def _weight(seed: int = 0) -> Tensor:
    return torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(seed))


def _error(weight: Tensor, quantized: QuantizedWeight) -> Tensor:
    return (quantized.dequantized() - weight).square().flatten(1).sum(dim=1)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("observer", ["minmax", "mse"])
def test_symmetric_codes_stay_in_their_range(bits: int, observer: str) -> None:
    codes = quantize_weight(_weight(), WeightFormat(bits), observer).codes
    assert codes.dtype == torch.int8
    assert int(codes.max()) == 2 ** (bits - 1) - 1
    assert int(codes.min()) >= (-127 if bits == 8 else -(2 ** (bits - 1)))


@given(st.integers(2, 7), st.floats(-3, 3))
def test_asymmetric_codes_of_a_row_span_no_more_than_their_bits(bits: int, shift: float) -> None:
    weight = _weight() + shift
    quantized = quantize_weight(weight, WeightFormat(bits, symmetric=False), "minmax")
    rows = quantized.codes.flatten(1).int()
    assert ((rows.amax(1) - rows.amin(1)) < 2**bits).all()
    error = (quantized.dequantized() - weight).abs().flatten(1).amax(dim=1)
    assert (error <= quantized.scale * 1.0001).all()


def test_one_scale_per_tensor() -> None:
    quantized = quantize_weight(_weight(), WeightFormat(8, per_channel=False), "minmax")
    assert (quantized.scale == quantized.scale[0]).all()
    assert quantized.scale[0] == _weight().abs().max() / 127


def test_minmax_error_is_within_half_a_step() -> None:
    quantized = quantize_weight(_weight(), WeightFormat(8), "minmax")
    error = (quantized.dequantized() - _weight()).abs().flatten(1).amax(dim=1)
    assert (error <= quantized.scale * 0.5001).all()


def test_mse_is_no_worse_than_minmax_in_any_channel_and_better_at_4_bits() -> None:
    weight = _weight()
    searched = _error(weight, quantize_weight(weight, WeightFormat(4), "mse"))
    plain = _error(weight, quantize_weight(weight, WeightFormat(4), "minmax"))
    assert (searched <= plain).all()
    assert searched.sum() < 0.97 * plain.sum()


def test_channels_do_not_influence_each_other() -> None:
    weight = _weight()
    scaled = weight * torch.tensor([1.0, 8, 1, 1, 1, 1]).reshape(-1, 1, 1, 1)
    first, second = (
        quantize_weight(weight, WeightFormat(8), "mse"),
        quantize_weight(scaled, WeightFormat(8), "mse"),
    )
    assert torch.equal(first.codes, second.codes)
    assert second.scale[1] == 8 * first.scale[1]


def test_dead_channel_has_zero_codes_and_a_usable_scale() -> None:
    weight = _weight()
    weight[2] = 0
    weight[3] *= 1e-12
    quantized = quantize_weight(weight, WeightFormat(8), "mse")
    assert not quantized.codes[2:4].any()
    assert (quantized.scale >= quantized.scale.max() * 2.0**-16).all()


def test_floor_raises_scales() -> None:
    floor = torch.tensor([0.0, 1.0, 0, 0, 0, 0])
    assert quantize_weight(_weight(), WeightFormat(8), "mse", floor).scale[1] == 1.0
