"""What is trained: gradients by the formulas, and a start that changes nothing."""

import math

import pytest
import torch
from torch import Tensor

from pipeline.quant.formats import int8
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.quantizers.logarithmic import GELU_SHIFT, Logarithmic, LogarithmicQuantizer
from pipeline.quant.quantizers.twin import Twin, TwinQuantizer
from pipeline.quant.quantizers.uniform import UniformQuantizer
from pipeline.quant.reconstruct.trainable import TrainableFake, TrainableRounding
from pipeline.quant.weights import QuantizedWeight, WeightFormat, encode, parameters

QUANTIZERS: dict[str, Quantizer] = {
    "asymmetric": UniformQuantizer(int8(4), (0.125,), (-3,)),
    "symmetric": UniformQuantizer(int8(4, symmetric=True), (0.125,), (0,)),
    "adalog": LogarithmicQuantizer(Logarithmic(4, None), 0.75, 20),
    "shifted": LogarithmicQuantizer(Logarithmic(4, None, shift=GELU_SHIFT), 0.75, 20),
    "twin": TwinQuantizer(Twin(4, signed=False), 2.0**-6, 3),
    "signed twin": TwinQuantizer(Twin(4, signed=True), 2.0**-6, 3),
}
PER_CHANNEL = UniformQuantizer(int8(4), (0.1, 0.1, 0.3, 0.3), (2, 2, -3, -3), axis=2)
every_quantizer = pytest.mark.parametrize("name", QUANTIZERS)


def values() -> Tensor:
    return torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()


def bounds(quantizer: Quantizer) -> tuple[float, float]:
    """The values that are not clipped, shifted ones for a shifted format."""
    if isinstance(quantizer, UniformQuantizer):
        (scale,), (zero,), form = quantizer.scale, quantizer.zero_point, quantizer.format
        return (form.qmin - zero) * scale, (form.qmax - zero) * scale
    if isinstance(quantizer, LogarithmicQuantizer):
        return 0.0, quantizer.scale
    most = (quantizer.format.half - 1) * quantizer.scale
    return (-most if quantizer.format.signed else 0.0), most * 2**quantizer.ratio


@every_quantizer
def test_the_start_is_the_quantizer(name: str) -> None:
    fake, x = TrainableFake(QUANTIZERS[name], drop=0), values()
    torch.testing.assert_close(fake(x), QUANTIZERS[name].fake(x), rtol=1e-4, atol=1e-5)
    assert fake.quantizer() == QUANTIZERS[name]


@every_quantizer
def test_the_trained_quantizer_restores_what_training_saw(name: str) -> None:
    fake, x = TrainableFake(QUANTIZERS[name], drop=0), values()
    with torch.no_grad():
        fake.log_scale += math.log(1.25)
    assert fake.quantizer() != QUANTIZERS[name]
    torch.testing.assert_close(fake(x), fake.quantizer().fake(x), rtol=1e-4, atol=1e-5)


@every_quantizer
def test_gradients_are_those_of_learned_step_size_quantization(name: str) -> None:
    quantizer = QUANTIZERS[name]
    fake, x = TrainableFake(quantizer, drop=0), values()
    shift = quantizer.format.shift if isinstance(quantizer, LogarithmicQuantizer) else 0.0
    low, high = bounds(quantizer)
    shifted = x.detach().double() + shift
    # Within a step of its ends a range may end at its last code or half a step beyond.
    step = quantizer.scale[0] if isinstance(quantizer, UniformQuantizer) else 0.0
    clear = ((shifted - low).abs() > step) & ((shifted - high).abs() > step)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) * clear
    (fake(x) * weight).sum().backward()
    inside = (shifted >= low) & (shifted <= high)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, weight * inside)
    # By the logarithm of the scale: the scale times LSQ's derivative by the scale.
    restored = quantizer.fake(x.detach()).double() + shift
    slope = torch.where(inside, restored - shifted, restored)
    expected = float((weight * slope).sum())
    assert float(fake.log_scale.grad.sum()) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_scale_per_channel_keeps_its_proportions() -> None:
    fake, x = TrainableFake(PER_CHANNEL, drop=0), values()
    assert torch.equal(fake(x), PER_CHANNEL.fake(x))
    with torch.no_grad():
        fake.log_scale += math.log(2.0)
    found = fake.quantizer()
    assert isinstance(found, UniformQuantizer)
    assert found.scale == pytest.approx([2 * s for s in PER_CHANNEL.scale])
    torch.testing.assert_close(fake(x), found.fake(x))


def test_some_values_stay_float_in_training_and_none_after() -> None:
    fake = TrainableFake(QUANTIZERS["symmetric"], drop=0.25)
    torch.manual_seed(0)
    x = torch.rand(1, 10_000) * 0.8 + 0.01
    quantized = fake.start.fake(x)
    out = fake(x)
    dropped = out != quantized
    # Restored by linear interpolation or by choice: equal up to the last bit.
    torch.testing.assert_close(out, torch.where(dropped, x, quantized))
    exact = ((out - x).abs() < 1e-7).float().mean()
    assert 0.22 < float(exact) < 0.28
    torch.testing.assert_close(fake.eval()(x), quantized)


FORMATS = [WeightFormat(3), WeightFormat(3, symmetric=False), WeightFormat(8)]
every_format = pytest.mark.parametrize("target", FORMATS, ids=repr)


def weight_case(target: WeightFormat) -> tuple[Tensor, QuantizedWeight]:
    """A weight that is clipped a little, and its nearest codes."""
    weight = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    rows = weight.flatten(1)
    scale, zero = parameters(rows.amin(1) * 0.8, rows.amax(1) * 0.8, target)
    return weight, encode(weight, scale, zero, target)


@every_format
def test_the_start_of_the_rounding_is_the_nearest_code(target: WeightFormat) -> None:
    weight, start = weight_case(target)
    found = TrainableRounding(weight, start, target).quantized()
    assert torch.equal(found.codes, start.codes)
    assert torch.equal(found.scale, start.scale)
    assert found.zero_point is not None and torch.equal(found.zero_point, start.zero_point)


@every_format
def test_soft_weights_begin_as_the_float_ones_where_nothing_is_clipped(
    target: WeightFormat,
) -> None:
    weight, start = weight_case(target)
    soft = TrainableRounding(weight, start, target)()
    assert start.zero_point is not None
    scale, zero = (p.reshape(-1, 1, 1, 1) for p in (start.scale, start.zero_point))
    low, high = ((limit - zero) * scale for limit in target.range)
    inside = (weight >= low) & (weight <= high)
    assert 0.8 < inside.float().mean() < 1
    assert ((soft - weight).abs() <= 0.0101 * scale)[inside].all()


@every_format
def test_codes_that_were_not_the_nearest_keep_their_side(target: WeightFormat) -> None:
    weight, start = weight_case(target)
    assert start.zero_point is not None
    zero = start.zero_point.reshape(-1, 1, 1, 1)
    low, high = (limit - zero for limit in target.range)
    steps = weight / start.scale.reshape(-1, 1, 1, 1)
    nearest = start.codes.float()
    other = torch.where(nearest > steps, nearest - 1, nearest + 1)
    random = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    codes = torch.minimum(torch.maximum(torch.where(random, other, nearest), low), high)
    changed = QuantizedWeight(codes.to(torch.int8), start.scale, start.zero_point)
    assert not torch.equal(changed.codes, start.codes)
    assert torch.equal(TrainableRounding(weight, changed, target).quantized().codes, changed.codes)


@every_format
def test_decided_weights_are_the_same_soft_and_hard(target: WeightFormat) -> None:
    weight, start = weight_case(target)
    rounding = TrainableRounding(weight, start, target)
    undecided = float(rounding.penalty(2.0).detach())
    random = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        rounding.alpha.copy_(20 * torch.sign(random))
    assert torch.equal(rounding.soft(), (random > 0).float())
    assert float(rounding.penalty(2.0).detach()) == 0 < undecided
    torch.testing.assert_close(rounding(), rounding.quantized().dequantized())


def test_the_penalty_is_largest_half_way_and_sharper_with_a_greater_exponent() -> None:
    weight, start = weight_case(FORMATS[0])
    rounding = TrainableRounding(weight, start, FORMATS[0])
    with torch.no_grad():
        rounding.alpha.zero_()
    assert float(rounding.penalty(2.0).detach()) == pytest.approx(weight.numel())
    with torch.no_grad():
        rounding.alpha += 0.5
    assert rounding.penalty(20.0) > rounding.penalty(2.0)


def test_gradients_reach_the_rounding_of_what_is_not_clipped() -> None:
    target = FORMATS[0]
    weight, start = weight_case(target)
    rounding = TrainableRounding(weight, start, target)
    rounding().sum().backward()
    gradient = rounding.alpha.grad
    assert gradient is not None and (gradient >= 0).all()
    low, high = target.range
    free = (start.codes > low) & (start.codes < high)
    assert (gradient[free] > 0).all()
