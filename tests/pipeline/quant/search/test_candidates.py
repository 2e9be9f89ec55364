"""Candidates: where the grids begin and end, and what zero points belong to them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.quant.quantizers import uniform
from pipeline.quant.search.candidates import (
    SCALE_FLOOR,
    Codes,
    logarithmic_grid,
    scale_grid,
    scale_zero_grid,
    twin_grid,
)

ASYMMETRIC, SYMMETRIC = Codes(-8, 7, False), Codes(-7, 7, True)


def groups(seed: int = 0, low: float = -1.0, high: float = 3.0) -> Tensor:
    """Values of three groups `[3, 500]`, of ranges 1, 10 and 0.1 times `[low, high]`."""
    values = torch.rand(3, 500, generator=torch.Generator().manual_seed(seed))
    return (low + (high - low) * values) * torch.tensor([[1.0], [10.0], [0.1]])


@pytest.mark.parametrize("codes", [ASYMMETRIC, SYMMETRIC])
@given(st.floats(-3, 3), st.floats(0.1, 3))
@settings(deadline=None, max_examples=30)
def test_the_multiple_1_covers_the_range_of_every_group(
    codes: Codes, low: float, width: float
) -> None:
    values = groups(low=low, high=low + width)
    pairs = scale_grid(values, codes, 1.0, 1.0, 1).pairs
    scale, zero = pairs.first[0], pairs.second[0]
    # Rounding the zero point may cost half a step at one end.
    slack = 0.501 * scale
    assert ((codes.qmin - zero) * scale <= values.amin(1) + slack).all()
    assert ((codes.qmax - zero) * scale >= values.amax(1) - slack).all()
    assert ((zero >= codes.qmin) & (zero <= codes.qmax) & (zero == zero.round())).all()
    assert not codes.symmetric or not zero.any()


def test_multiples_go_from_the_least_to_the_greatest_in_equal_steps() -> None:
    grid = scale_grid(groups(), SYMMETRIC, 0.5, 1.5, 11)
    whole = groups().abs().amax(1) / 7
    torch.testing.assert_close(grid.pairs.first[0], whole * 0.5)
    torch.testing.assert_close(grid.pairs.first[-1], whole * 1.5)
    steps = grid.pairs.first[1:] - grid.pairs.first[:-1]
    torch.testing.assert_close(steps, grid.spacing.expand_as(steps), rtol=1e-3, atol=1e-7)


def test_zero_points_beside_every_scale() -> None:
    grid = scale_zero_grid(groups(), ASYMMETRIC, zero_points=5, count=40)
    assert grid.pairs.first.shape == (40, 3)
    outer = (groups().amax(1) - groups().amin(1)) / 15
    torch.testing.assert_close(grid.pairs.first[-1], outer)
    assert (grid.pairs.first[0] < 0.85 * outer).all()
    whole = scale_grid(groups(), ASYMMETRIC, 1.0, 1.0, 1).pairs.second[0]
    for index in range(3):
        zeros = grid.pairs.second[:, index]
        tried = zeros.unique()
        assert len(tried) == 5 and whole[index] in tried
        for zero in tried:
            assert len(grid.pairs.first[zeros == zero, index].unique()) == 8


@pytest.mark.parametrize("low", [0.0, -4.0])
def test_zero_points_at_the_end_of_the_codes_stay_codes(low: float) -> None:
    zeros = scale_zero_grid(groups(low=low, high=low + 4), ASYMMETRIC, 16, 64).pairs.second
    assert zeros.min() >= -8 and zeros.max() <= 7
    assert len(zeros[:, 0].unique()) == 16


def test_more_zero_points_than_candidates_leave_two_scales() -> None:
    pairs = scale_zero_grid(groups(), ASYMMETRIC, zero_points=16, count=8).pairs
    assert pairs.first.shape == (8, 3)
    assert len(pairs.first[:, 0].unique()) == 2


def test_constant_values_have_usable_scales() -> None:
    zeros = torch.zeros(2, 10)
    for grid in (
        scale_grid(zeros, ASYMMETRIC, 0.3, 1.2, 10),
        scale_zero_grid(zeros, ASYMMETRIC, 4, 12),
    ):
        assert (grid.pairs.first >= SCALE_FLOOR).all()
        restored = uniform.fake(
            zeros,
            grid.pairs.first.unsqueeze(-1),
            grid.pairs.second.unsqueeze(-1),
            uniform.Uniform("int8", -8, 7),
        )
        assert not restored.any()


def test_logarithmic_scales_by_bases() -> None:
    values = torch.cat([torch.zeros(50), torch.linspace(0, 2, 101)])
    grid = logarithmic_grid(values, [3, 37, 60], scales=4)
    assert grid.pairs.first.shape == (12,)
    assert float(grid.pairs.first.max()) == 2.0
    # zeros do not count: they have no logarithm
    assert float(grid.pairs.first.min()) == pytest.approx(1.8, abs=0.02)
    assert grid.pairs.second.unique().tolist() == [3, 37, 60]


def test_a_fixed_scale_leaves_the_bases() -> None:
    grid = logarithmic_grid(torch.tensor([1.0]), [1, 2, 3], scales=1)
    assert grid.pairs.first.tolist() == [1.0] * 3


def test_twin_steps_reach_the_greatest_value_by_every_ratio() -> None:
    grid = twin_grid(14.0, half=8, largest_ratio=3, scales=5)
    coarse = grid.pairs.first * torch.exp2(grid.pairs.second)
    assert grid.pairs.first.shape == (20,)
    assert coarse.unique().tolist() == pytest.approx([0.8, 1.1, 1.4, 1.7, 2.0])
    assert grid.pairs.second.unique().tolist() == [0, 1, 2, 3]
