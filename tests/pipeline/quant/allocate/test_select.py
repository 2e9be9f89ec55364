"""Selection is exact, and more budget never hurts."""

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quant.allocate.select import select

Options = list[tuple[int, float]]

options = st.lists(
    st.tuples(st.integers(0, 50), st.floats(0, 100).map(lambda v: round(v, 3))),
    min_size=1,
    max_size=4,
)
problems = st.lists(options, min_size=1, max_size=4)


def _split(groups: list[Options]) -> tuple[list[list[int]], list[list[float]]]:
    return [[c for c, _ in group] for group in groups], [[s for _, s in group] for group in groups]


def _score(groups: list[Options], chosen: list[int]) -> float:
    return sum(group[index][1] for group, index in zip(groups, chosen, strict=True))


def _cost(groups: list[Options], chosen: list[int]) -> int:
    return sum(group[index][0] for group, index in zip(groups, chosen, strict=True))


@given(problems, st.integers(0, 200))
def test_no_selection_within_the_budget_is_better(groups: list[Options], budget: int) -> None:
    chosen = select(*_split(groups), budget)
    every = map(list, product(*(range(len(group)) for group in groups)))
    fitting = [one for one in every if _cost(groups, one) <= budget]
    if chosen is None:
        assert not fitting
        return
    assert _cost(groups, chosen) <= budget
    least = min(_score(groups, one) for one in fitting)
    assert np.isclose(_score(groups, chosen), least, atol=1e-9)


@given(problems, st.integers(0, 200), st.integers(0, 50))
def test_a_larger_budget_is_never_worse(groups: list[Options], budget: int, more: int) -> None:
    small, large = (select(*_split(groups), b) for b in (budget, budget + more))
    if small is not None:
        assert large is not None
        assert _score(groups, large) <= _score(groups, small) + 1e-9


def test_equal_scores_take_the_cheaper_option() -> None:
    assert select([[8, 4, 6]], [[1.0, 1.0, 1.0]], 100) == [1]


def test_sizes_without_a_common_divisor_stay_within_the_budget_and_near_the_optimum() -> None:
    random = np.random.default_rng(0)
    counts = random.integers(10**6, 10**7, 40)
    costs = [[int(count * bits + 7 * bits) for bits in (2, 4, 6, 8)] for count in counts]
    scores = [[float(h * 4.0**-bits) for bits in (2, 4, 6, 8)] for h in random.random(40)]
    budget = int(4 * counts.sum())
    chosen = select(costs, scores, budget)
    assert chosen is not None
    assert sum(costs[i][j] for i, j in enumerate(chosen)) <= budget
    # The best convex combination of options bounds the optimum from below.
    found = sum(scores[i][j] for i, j in enumerate(chosen))
    bound = max(
        sum(
            min(s + price * c for c, s in zip(*pair, strict=True))
            for pair in zip(costs, scores, strict=True)
        )
        - price * budget
        for price in np.logspace(-14, -7, 200)
    )
    assert found < bound * 1.05
