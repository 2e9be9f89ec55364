"""Minimum cuts against trying all of them."""

from collections.abc import Mapping
from itertools import combinations
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from tvm_passes.graph.min_cut import Vertex, minimum_cut

Capacities = Mapping[tuple[Vertex, Vertex], float]

VERTICES = ["s", 0, 1, 2, 3, "t"]


def crossing(capacities: Capacities, side: set[Vertex]) -> float:
    """Capacity of the edges that leave ``side``."""
    return sum(c for (start, end), c in capacities.items() if start in side and end not in side)


def least(capacities: Capacities) -> float:
    inner = VERTICES[1:-1]
    sides = [{"s", *some} for size in range(5) for some in combinations(inner, size)]
    return min(crossing(capacities, side) for side in sides)


EDGES = [(a, b) for a in VERTICES[:-1] for b in VERTICES[1:] if a != b]


@given(st.dictionaries(st.sampled_from(EDGES), st.integers(0, 9)))
def test_no_other_cut_is_cheaper(capacities: Capacities) -> None:
    side = minimum_cut(capacities, "s", "t")
    assert "s" in side and "t" not in side
    assert crossing(capacities, side) == least(capacities)


def test_an_infinite_edge_is_not_cut() -> None:
    capacities = {("s", 0): 5, (0, 1): inf, (1, "t"): 3, ("s", "t"): 2}
    assert minimum_cut(capacities, "s", "t") == {"s", 0, 1}


def test_of_equal_cuts_the_one_near_the_source_is_taken() -> None:
    assert minimum_cut({("s", 0): 4, (0, 1): 4, (1, "t"): 4}, "s", "t") == {"s"}
