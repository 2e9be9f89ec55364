"""One option for every group, so that their scores add up to the least within a budget.

This is a knapsack with groups; dynamic programming over the budget solves it exactly.
"""

from collections.abc import Sequence
from math import gcd

import numpy as np

_CELLS = 1 << 17
"""Costs that are told apart. Sizes of layers have large common divisors, so that these mostly do;
where they do not, costs are rounded up."""


def select(
    costs: Sequence[Sequence[int]], scores: Sequence[Sequence[float]], budget: int
) -> list[int] | None:
    """The option of every group, as indices.

    Of selections with the same score, one whose groups are cheap is taken.

    Args:
        costs: of every group's options.
        scores: likewise; smaller is better.
        budget: what the costs may add up to.

    Returns:
        None where even the cheapest options exceed the budget.
    """
    least = [min(group) for group in costs]
    extra = [[cost - low for cost in group] for group, low in zip(costs, least, strict=True)]
    room = budget - sum(least)
    if room < 0:
        return None
    unit = gcd(*(cost for group in extra for cost in group)) or 1
    # Independent of the budget, so that a larger one never does worse.
    unit *= -(-sum(map(max, extra)) // (unit * _CELLS)) or 1
    steps = [[-(-cost // unit) for cost in group] for group in extra]
    cells = min(room // unit, sum(map(max, steps))) + 1

    best = np.zeros(cells)  # least score of the groups so far with at most so many steps
    chosen = []
    for group_steps, group_scores in zip(steps, scores, strict=True):
        reached = np.full(cells, np.inf)
        option = np.zeros(cells, np.int16)
        for index in sorted(range(len(group_steps)), key=group_steps.__getitem__):
            step = group_steps[index]
            if step >= cells:
                continue
            candidate = best[: cells - step] + group_scores[index]
            better = candidate < reached[step:]
            reached[step:][better] = candidate[better]
            option[step:][better] = index
        best = reached
        chosen.append(option)

    found: list[int] = []
    at = cells - 1
    for option, group_steps in zip(reversed(chosen), reversed(steps), strict=True):
        found.append(int(option[at]))
        at -= group_steps[found[-1]]
    return found[::-1]
