"""The search of weights: the quadratic form is the error of the outputs."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.quant.quantizers import uniform
from pipeline.quant.search.engine import Pair
from pipeline.quant.search.objectives import mse
from pipeline.quant.search.operands import Space
from pipeline.quant.search.weights import (
    as_rows,
    by_photo,
    fake_rows,
    output_losses,
    quadratic_losses,
    weight_grid,
)
from pipeline.quant.sites import Sampling, Weighted, collect_sites
from pipeline.quant.weights import WeightFormat, encode
from tests.pipeline.quant.conftest import Builder

aten = torch.ops.aten

FORMATS = [
    WeightFormat(4),
    WeightFormat(3, symmetric=False),
    WeightFormat(4, per_channel=False),
    WeightFormat(8),
]


def site(groups: int) -> Weighted:
    """Six positions of four photos, of a convolution of 8 channels to 6."""
    builder = Builder(seed=groups)
    x = builder.call(aten.silu.default, builder.stem())
    weight = builder.random_constant(6, 8 // groups, 1, 1)
    conv = builder.call(aten.conv2d.default, x, weight, None, [1, 1], [0, 0], [1, 1], groups)
    photos = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    found = collect_sites(builder.head(builder.tokens(conv)), photos, Sampling(rows=6))
    sampled = found[conv.name]
    assert isinstance(sampled, Weighted)
    return sampled


def restored(x: Tensor) -> Tensor:
    """Coarsely quantized inputs."""
    return uniform.fake(x, torch.tensor(0.5), torch.tensor(0), uniform.Uniform("int8", -4, 3))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("target", FORMATS, ids=repr)
@pytest.mark.parametrize("exact", [True, False])
def test_the_quadratic_form_is_the_squared_error(
    groups: int, target: WeightFormat, exact: bool
) -> None:
    sampled = site(groups)
    x = sampled.x if exact else restored(sampled.x)
    pairs = weight_grid(sampled.w, target, Space(count=9)).pairs
    found = quadratic_losses(sampled, x, target)(pairs)
    rows = fake_rows(sampled.w, pairs, target).double()
    outputs = torch.einsum("sgk,cgok->csgo", x.double(), rows)
    wanted = torch.einsum("sgk,gok->sgo", sampled.x.double(), sampled.w.double())
    error = (outputs - wanted).square().mean(dim=1)
    expected = error if target.per_channel else error.mean(dim=(1, 2))
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", FORMATS, ids=repr)
def test_explicit_outputs_give_the_same_squared_error(target: WeightFormat) -> None:
    sampled = site(2)
    pairs = weight_grid(sampled.w, target, Space(count=9)).pairs
    found = output_losses(sampled, restored(sampled.x), target, mse, None)(pairs)
    expected = quadratic_losses(sampled, restored(sampled.x), target)(pairs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", FORMATS, ids=repr)
@pytest.mark.parametrize("zero_points", [0, 4])
def test_a_candidate_is_what_its_codes_say(target: WeightFormat, zero_points: int) -> None:
    sampled = site(2)
    pairs = weight_grid(sampled.w, target, Space(count=20, zero_points=zero_points)).pairs
    choice = Pair(pairs.first[7], pairs.second[7])
    rows = as_rows(choice, sampled)
    assert rows.first.shape == rows.second.shape == (6,)
    codes = encode(sampled.w.flatten(0, 1), *rows, target)
    expected = fake_rows(sampled.w, choice.candidate(), target)[0]
    torch.testing.assert_close(codes.dequantized().reshape(expected.shape), expected)


def test_rows_of_a_photo_lie_together() -> None:
    sampled = site(1)
    photos = by_photo(sampled.y.unsqueeze(0), sampled)
    assert photos.shape == (1, 4, 6, 1, 6)
    assert torch.equal(photos[0, 2], sampled.y[12:18])
