"""The engine: the least loss of every group, and refinements that never lose it."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.quant.search.engine import Losses, Pair, best_of, coarse_to_fine, score


def grid(count: int, groups: tuple[int, ...]) -> tuple[Pair, Tensor]:
    """First parameters from 1 to 2, second ones 0, 1, 2 in turn; the spacing of the first."""
    shape = (count, *[1] * len(groups))
    first = torch.linspace(1, 2, count).reshape(shape).expand(count, *groups)
    second = (torch.arange(count) % 3).float().reshape(shape).expand(count, *groups)
    return Pair(first, second), torch.full(groups, 1 / max(count - 1, 1))


def rough(seed: int, groups: tuple[int, ...]) -> Losses:
    """A loss with a minimum and ripples, of its own for every group."""
    random = torch.Generator().manual_seed(seed)
    target = 1 + torch.rand(groups, generator=random)
    level = torch.randint(3, groups, generator=random).float()

    def losses(pair: Pair) -> Tensor:
        away = pair.first - target
        return away.square() + 0.02 * torch.sin(60 * away) + 0.1 * (pair.second - level).abs()

    return losses


def test_the_best_of_every_group_is_that_of_a_plain_loop() -> None:
    candidates, _ = grid(20, (2, 3))
    losses = rough(0, (2, 3))
    found = best_of(candidates, losses, chunk=7)
    table = losses(candidates)
    for i in range(2):
        for j in range(3):
            best = min(range(20), key=lambda c, i=i, j=j: table[c, i, j])
            assert found.loss[i, j] == table[best, i, j]
            assert found.pair.first[i, j] == candidates.first[best, i, j]
            assert found.pair.second[i, j] == candidates.second[best, i, j]


def test_chunks_do_not_matter() -> None:
    candidates, _ = grid(20, (3,))
    scored = [score(candidates, rough(0, (3,)), chunk) for chunk in (1, 7, 100)]
    assert torch.equal(scored[0], scored[1]) and torch.equal(scored[0], scored[2])


@given(
    st.integers(0, 1000),
    st.integers(2, 40),
    st.sampled_from([(), (1,), (3,), (2, 2)]),
    st.integers(1, 5),
    st.integers(1, 20),
)
@settings(deadline=None, max_examples=60)
def test_refinement_is_never_worse_than_its_grid(
    seed: int, count: int, groups: tuple[int, ...], steps: int, keep: int
) -> None:
    candidates, spacing = grid(count, groups)
    losses = rough(seed, groups)
    found = coarse_to_fine(candidates, spacing, losses, steps, keep)
    assert found.loss.shape == groups
    assert (found.loss <= best_of(candidates, losses).loss).all()
    assert torch.equal(losses(found.pair.candidate())[0], found.loss)
    assert (found.pair.first > 0).all()


def test_refinement_finds_what_lies_between_the_candidates() -> None:
    candidates, spacing = grid(12, (4,))
    target = torch.tensor([1.03, 1.234, 1.777, 1.999])
    found = coarse_to_fine(candidates, spacing, lambda p: (p.first - target).square(), 8, 4)
    torch.testing.assert_close(found.pair.first, target, rtol=1e-3, atol=0)


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_groups_are_independent(seed: int) -> None:
    candidates, spacing = grid(16, (3,))
    losses = rough(seed, (3,))
    together = coarse_to_fine(candidates, spacing, losses, 4, 5)
    for group in range(3):

        def alone(pair: Pair, group: int = group) -> Tensor:
            spread = Pair(*(p.unsqueeze(1).expand(-1, 3) for p in pair))
            return losses(spread)[:, group]

        own = Pair(candidates.first[:, group], candidates.second[:, group])
        found = coarse_to_fine(own, spacing[group], alone, 4, 5)
        assert found.loss == together.loss[group]
        assert found.pair.first == together.pair.first[group]
