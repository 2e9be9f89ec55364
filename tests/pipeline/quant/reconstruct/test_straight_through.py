"""Quantizers under training: what they give, and which gradients pass."""

import pytest
import torch
from torch import Tensor

from pipeline.quant.heads import Heads
from pipeline.quant.quantizers.logarithmic import Logarithmic, LogarithmicQuantizer
from pipeline.quant.quantizers.twin import Twin, TwinQuantizer
from pipeline.quant.quantizers.uniform import Uniform, UniformQuantizer
from pipeline.quant.reconstruct.masks import random_mask
from pipeline.quant.reconstruct.straight_through import straight_through
from pipeline.quant.reconstruct.trainable import TrainableFake

_FEW = Uniform("int8", -4, 3)
QUANTIZERS = {
    "uniform": UniformQuantizer(_FEW, (0.25,), (-1,)),
    "per head": UniformQuantizer(_FEW, (0.25, 0.25, 0.5), (-1, -1, 2), axis=1),
    "log": LogarithmicQuantizer(Logarithmic(4, None, shift=0.17), 2.0, 30),
    "twin": TwinQuantizer(Twin(4, signed=True), 0.0625, 2),
}


def _values(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_untrained_it_gives_what_the_quantizer_gives(name: str) -> None:
    fake = TrainableFake(QUANTIZERS[name], 0.0, Heads(1, (0, 0, 1)))
    x = _values(40, 3)
    torch.testing.assert_close(fake(x), QUANTIZERS[name].fake(x), rtol=1e-5, atol=1e-6)
    assert fake.quantizer() == QUANTIZERS[name]


@pytest.mark.parametrize("name", QUANTIZERS)
def test_photos_in_front_change_nothing(name: str) -> None:
    fake = TrainableFake(QUANTIZERS[name], 0.0, Heads(1, (0, 0, 1)))
    x = _values(5, 40, 3)
    torch.testing.assert_close(torch.vmap(fake)(x), torch.stack([fake(one) for one in x]))


def test_gradients_are_those_of_lsq() -> None:
    x = torch.tensor([-3.0, -0.3, 0.1, 0.6, 2.0], requires_grad=True)
    scale = torch.tensor(0.25, requires_grad=True)

    def restore(values: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        codes = torch.floor(values / s + 0.5)
        return codes.clamp(-4, 3) * s, (codes >= -4) & (codes <= 3)

    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    (straight_through(x, scale, restore, 0.0) * weights).sum().backward()
    assert torch.equal(x.grad, torch.tensor([0.0, 2.0, 3.0, 4.0, 0.0]))
    slopes = torch.tensor([-4.0, -1 + 1.2, 0 - 0.4, 2 - 2.4, 3.0])
    torch.testing.assert_close(scale.grad, (weights * slopes).sum())


def test_every_head_has_a_scale_of_its_own_to_train() -> None:
    fake = TrainableFake(QUANTIZERS["per head"], 0.0, Heads(1, (0, 0, 1)))
    (fake(_values(40, 3))[:, 2] ** 2).sum().backward()
    assert fake.log_scale.grad[0] == 0 != fake.log_scale.grad[1]
    fake.log_scale.data = torch.tensor([0.0, 1.0])
    first, second, third = fake.quantizer().scale
    assert first == second == 0.25 and third == pytest.approx(0.5 * 2.71828, rel=1e-4)


def test_dropped_values_stay_float_with_their_gradients() -> None:
    torch.manual_seed(0)
    fake = TrainableFake(QUANTIZERS["uniform"], 0.5)
    x = (10 + _values(4000)).requires_grad_()
    result = fake(x)
    left = result == x
    assert 0.45 < float(left.float().mean()) < 0.55
    assert torch.equal(result[~left], QUANTIZERS["uniform"].fake(x)[~left])
    result.sum().backward()
    assert torch.equal(x.grad, left.float())


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_masks_have_their_share_of_ones(probability: float) -> None:
    mask = random_mask(torch.empty(37, 501), probability, torch.Generator().manual_seed(1))
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert float(mask.mean()) == pytest.approx(probability, abs=0.02)
    again = random_mask(torch.empty(37, 501), probability, torch.Generator().manual_seed(1))
    assert torch.equal(mask, again)
