"""Compensated rounding: less error for correlated inputs, the nearest codes for others."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.quant.initial import initial_weights
from pipeline.quant.plan import make_plan
from pipeline.quant.recipe import load_recipe, parse_recipe
from pipeline.quant.rounding import compensated_codes, round_weights
from pipeline.quant.search.engine import Pair
from pipeline.quant.sites import Sampling, Weighted, collect_sites
from pipeline.quant.weights import WeightFormat, encode, parameters

FORMATS = [WeightFormat(b, symmetric=s) for b in (2, 3, 4, 8) for s in (True, False)]


def case(seed: int, target: WeightFormat) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows `[6, 16]`, their scales and zero points, and moments of correlated inputs."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(6, 16, generator=random)
    scale, zero = parameters(rows.amin(1), rows.amax(1), target)
    x = torch.randn(200, 6, generator=random) @ torch.randn(6, 16, generator=random)
    x += 0.3 * torch.randn(200, 16, generator=random)
    return rows, scale, zero, x.T @ x / 200


def error(rows: Tensor, codes: Tensor, scale: Tensor, moments: Tensor) -> float:
    """Mean squared error of the outputs, summed over rows."""
    moved = (codes * scale.unsqueeze(1) - rows).double()
    return float((moved @ moments.double() * moved).sum())


@pytest.mark.parametrize("target", FORMATS, ids=repr)
@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=15)
def test_correlated_inputs_have_less_error_than_with_the_nearest_codes(
    target: WeightFormat, seed: int
) -> None:
    rows, scale, zero, moments = case(seed, target)
    nearest = encode(rows, scale, zero, target).codes
    compensated = compensated_codes(rows, scale, zero, target, moments)
    assert error(rows, compensated, scale, moments) < error(rows, nearest, scale, moments)


@pytest.mark.parametrize("target", FORMATS, ids=repr)
def test_codes_stay_in_their_range(target: WeightFormat) -> None:
    rows, scale, zero, moments = case(0, target)
    codes = compensated_codes(rows, scale / 2, zero, target, moments)
    low, high = target.range
    assert codes.dtype == torch.int8
    shifted = codes.int() + zero.int().unsqueeze(1)
    assert int(shifted.min()) >= low and int(shifted.max()) <= high


@pytest.mark.parametrize("target", FORMATS, ids=repr)
@pytest.mark.parametrize("factor", [0.0, 1.0, 1e6])
def test_uncorrelated_inputs_have_the_nearest_codes(target: WeightFormat, factor: float) -> None:
    rows, scale, zero, _ = case(1, target)
    expected = encode(rows, scale, zero, target).codes
    moments = torch.diag(factor * torch.linspace(0.5, 2, 16))
    assert torch.equal(compensated_codes(rows, scale, zero, target, moments), expected)


def test_the_order_of_the_inputs_does_not_matter() -> None:
    target = WeightFormat(3)
    rows, scale, zero, moments = case(2, target)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    codes = compensated_codes(rows, scale, zero, target, moments)
    turned = compensated_codes(rows[:, order], scale, zero, target, moments[order][:, order])
    assert torch.equal(turned, codes[:, order])


def test_inputs_that_are_always_zero_do_not_disturb_the_others() -> None:
    target = WeightFormat(4)
    rows, scale, zero, moments = case(3, target)
    alive = torch.arange(16) != 5
    moments = moments * alive * alive.unsqueeze(1)
    codes = compensated_codes(rows, scale, zero, target, moments)
    assert torch.equal(codes[:, 5], encode(rows, scale, zero, target).codes[:, 5])
    nearest = encode(rows, scale, zero, target).codes
    assert error(rows, codes, scale, moments) < error(rows, nearest, scale, moments)


RECIPE = load_recipe("w8a8:w4a8")


def compensated(symmetric: bool = True):
    content = RECIPE.model_dump()
    content["weights"] |= {"rounding": "compensated", "symmetric": symmetric}
    return parse_recipe(content, "test")


def grouped(builder):
    """A graph with a depthwise and a grouped convolution."""
    aten = torch.ops.aten
    x = builder.stem()
    for groups in (8, 2):
        weight = builder.random_constant(8, 8 // groups, 3, 3, std=0.3)
        x = builder.call(aten.relu.default, x)
        x = builder.call(
            aten.conv2d.default, x, weight, None, [1, 1], [1, 1], [1, 1], groups, path=f"g{groups}"
        )
    return builder.head(builder.tokens(x))


def test_nearest_rounding_without_a_search_is_the_observers_start(vit) -> None:
    plan = make_plan(vit.graph, RECIPE)
    expected = initial_weights(vit, plan, RECIPE, {})
    found = round_weights(vit, plan, RECIPE, {}, {}, {})
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert torch.equal(weight.codes, expected[name].codes)
        assert torch.equal(weight.scale, expected[name].scale)


@pytest.mark.parametrize("symmetric", [True, False])
def test_every_product_of_a_graph_has_less_error(builder, images, symmetric: bool) -> None:
    graph = grouped(builder)
    recipe = compensated(symmetric)
    plan = make_plan(graph.graph, recipe)
    sites = collect_sites(graph, images[:8], Sampling(rows=1 << 30))
    start = initial_weights(graph, plan, recipe, {})
    found = round_weights(graph, plan, recipe, {}, {}, sites)
    for name, site in sites.items():
        assert isinstance(site, Weighted)
        errors = []
        for weights in (found, start):
            w = weights[name].dequantized().reshape(site.w.shape)
            moved = (w - site.w).double()
            errors.append(float((moved @ site.moments.double() * moved).sum()))
        assert errors[0] <= errors[1]
        assert found[name].codes.shape == start[name].codes.shape
    assert any(not torch.equal(found[n].codes, start[n].codes) for n in found)


def test_what_a_search_found_is_used(vit, images) -> None:
    recipe = compensated()
    plan = make_plan(vit.graph, recipe)
    sites = collect_sites(vit, images[:2], Sampling())
    start = initial_weights(vit, plan, recipe, {})
    rows = {"linear_default_1": Pair(start["linear_default_1"].scale * 1.5, torch.zeros(8))}
    found = round_weights(vit, plan, recipe, {}, rows, sites)
    for name, weight in found.items():
        factor = 1.5 if name in rows else 1.0
        assert torch.equal(weight.scale, start[name].scale * factor)
