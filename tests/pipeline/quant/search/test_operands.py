"""Operands: a choice of the search is the quantizer that it becomes."""

import pytest
import torch
from torch import Tensor

from pipeline.quant.formats import int8
from pipeline.quant.heads import Heads
from pipeline.quant.quantizers import Format
from pipeline.quant.quantizers.logarithmic import GELU_SHIFT, Logarithmic
from pipeline.quant.quantizers.twin import Twin
from pipeline.quant.search.engine import Pair, best_of
from pipeline.quant.search.operands import Space, UniformOperand, operand_of

FORMATS: list[Format] = [
    int8(4),
    int8(4, symmetric=True),
    Logarithmic(4, None, fixed_scale=1.0),
    Logarithmic(4, None, shift=GELU_SHIFT),
    Logarithmic(4, 1, 2, fixed_scale=1.0),
    Twin(4, signed=False),
    Twin(4, signed=True),
]


def values(target: Format) -> Tensor:
    """Values that the format is for, `[40, 25]`."""
    x = torch.randn(40, 25, generator=torch.Generator().manual_seed(0))
    if isinstance(target, Logarithmic) and target.shift or isinstance(target, Twin):
        return torch.nn.functional.gelu(x * 2) if getattr(target, "signed", True) else x.softmax(-1)
    return x.softmax(-1) if isinstance(target, Logarithmic) else x


@pytest.mark.parametrize("target", FORMATS, ids=repr)
def test_a_candidate_restores_what_its_quantizer_restores(target: Format) -> None:
    x = values(target)
    operand = operand_of(x, target)
    pairs = operand.grid(Space(count=24)).pairs
    for index in (0, len(pairs.first) // 2, len(pairs.first) - 1):
        pair = Pair(pairs.first[index], pairs.second[index])
        restored = operand.fake(pair.candidate())[0]
        expected = operand.quantizer(pair).fake(x)
        close = torch.isclose(restored, expected, rtol=1e-4, atol=1e-6)
        # Values at the border of two logarithmic codes may fall to either side.
        assert close.float().mean() >= (0.99 if isinstance(target, Logarithmic) else 1)


@pytest.mark.parametrize("target", FORMATS, ids=repr)
def test_the_incumbent_stands_for_its_quantizer(target: Format) -> None:
    operand = operand_of(values(target), target)
    pairs = operand.grid(Space(count=24)).pairs
    quantizer = operand.quantizer(Pair(pairs.first[3 % len(pairs.first)], pairs.second[0]))
    incumbent = operand.incumbent(quantizer)
    assert operand.quantizer(Pair(incumbent.first[0], incumbent.second[0])) == quantizer


def test_too_many_candidates_are_screened_on_the_values_themselves() -> None:
    target = Logarithmic(4, None, shift=GELU_SHIFT)
    operand = operand_of(values(target), target)

    def losses(pair: Pair) -> Tensor:
        return (operand.fake(pair) - values(target)).square().mean(dim=(1, 2))

    every, few = (operand.grid(Space(count=n)).pairs for n in (1 << 20, 20))
    assert (len(every.first), len(few.first)) == (137 * 16, 20)
    assert best_of(few, losses).loss == best_of(every, losses).loss
    assert float(losses(few).max()) == pytest.approx(
        float(losses(every).sort().values[19]), rel=1e-5
    )


def per_head() -> UniformOperand:
    """Three heads of four channels, of different ranges: sampled `[I, H, M, K]`."""
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    x *= torch.tensor([1.0, 10.0, 0.1]).reshape(3, 1, 1)
    return UniformOperand(x, int8(4), 1, Heads(2, (0,) * 4 + (1,) * 4 + (2,) * 4))


def test_heads_have_scales_of_their_own() -> None:
    operand = per_head()
    pairs = operand.grid(Space(count=10)).pairs
    assert pairs.first.shape == (10, 3)
    alone = [operand_of(operand.values[:, h], int8(4)).grid(Space(count=10)) for h in range(3)]
    assert torch.equal(pairs.first, torch.stack([grid.pairs.first for grid in alone], dim=1))


def test_a_scale_per_head_becomes_one_per_channel_of_the_tensor() -> None:
    operand = per_head()
    pairs = operand.grid(Space(count=10)).pairs
    pair = Pair(pairs.first[4], pairs.second[4])
    quantizer = operand.quantizer(pair)
    assert quantizer.axis == 2 and len(quantizer.scale) == 12
    tensor = operand.values.permute(0, 2, 1, 3).reshape(2, 5, 12)
    restored = quantizer.fake(tensor).reshape(2, 5, 3, 4).permute(0, 2, 1, 3)
    assert torch.equal(restored, operand.fake(pair.candidate())[0])
    incumbent = operand.incumbent(quantizer)
    assert torch.equal(incumbent.first[0], pair.first)
    assert torch.equal(incumbent.second[0], pair.second)


def test_one_scale_is_an_incumbent_for_all_heads() -> None:
    operand = per_head()
    quantizer = operand_of(operand.values, int8(4)).quantizer(
        Pair(torch.tensor(0.5), torch.tensor(2.0))
    )
    incumbent = operand.incumbent(quantizer)
    assert incumbent.first.tolist() == [[0.5] * 3] and incumbent.second.tolist() == [[2.0] * 3]
