"""Layouts and chains of views: digits do what NumPy does."""

from math import prod

import numpy as np
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tvm_passes.graph.view_algebra import (
    Digit,
    Layout,
    Permute,
    Reshape,
    Shape,
    Step,
    along,
    backwards,
    by_axis,
    canonical,
    chained,
    keeps_rows,
    normalize,
    row_major,
    shapes,
    split,
    transposition,
)

PRIMES = [1, 1, 2, 2, 2, 3, 3, 5]


def run(x: NDArray[np.int64], steps: list[Step]) -> NDArray[np.int64]:
    for step in steps:
        x = x.reshape(step.shape) if isinstance(step, Reshape) else x.transpose(step.axes)
    return x


@st.composite
def some_shapes(draw: st.DrawFn, size: int | None = None) -> Shape:
    """A shape of up to 360 elements, or a factorization of ``size``."""
    if size is None:
        factors = draw(st.lists(st.sampled_from(PRIMES), max_size=6))
    else:
        factors, rest = [], size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                factors, rest = [*factors, prime], rest // prime
        factors = draw(st.permutations([*factors, 1]))
    groups: list[int] = []
    for factor in factors:
        if groups and draw(st.booleans()):
            groups[-1] *= factor
        else:
            groups.append(factor)
    return tuple(groups)


@st.composite
def chains(draw: st.DrawFn, size: int | None = None) -> tuple[Shape, list[Step]]:
    source = shape = draw(some_shapes(size))
    steps: list[Step] = []
    for _ in range(draw(st.integers(0, 5))):
        if draw(st.booleans()):
            shape = draw(some_shapes(prod(shape)))
            steps.append(Reshape(shape))
        else:
            axes = tuple(draw(st.permutations(range(len(shape)))))
            shape = tuple(shape[axis] for axis in axes)
            steps.append(Permute(axes))
    return source, steps


def numbered(shape: Shape) -> NDArray[np.int64]:
    """Every element is its row-major index."""
    return np.arange(prod(shape)).reshape(shape)


def memory(layout: Layout) -> NDArray[np.int64]:
    """The row-major indices of a tensor's elements in the order in which they lie."""
    index = np.zeros(1, np.int64)
    for weight, extent in layout:
        index = (index[:, None] + weight * np.arange(extent)).ravel()
    return index


@given(chains())
@example(((4, 3), [Reshape((6, 2))]))
@example(((1, 1), [Permute((1, 0))]))
def test_a_layout_is_the_index_after_a_chain_of_the_elements_before(
    chain: tuple[Shape, list[Step]],
) -> None:
    source, steps = chain
    view = normalize(source, steps)
    assume(view is not None)
    result = run(numbered(source), steps)
    assert view.shape == result.shape == shapes(source, steps)[-1]
    np.testing.assert_array_equal(result.ravel()[memory(view.layout)], np.arange(result.size))
    assert view.moves_data == (not np.array_equal(result.ravel(), np.arange(result.size)))


@given(chains())
def test_one_permutation_makes_a_view_of_its_source(chain: tuple[Shape, list[Step]]) -> None:
    source, steps = chain
    view = normalize(source, steps)
    assume(view is not None)
    turn = transposition(view.layout, row_major(view.shape))
    assert turn is not None
    shape, axes = turn
    made = numbered(source).reshape(shape).transpose(axes).reshape(view.shape)
    np.testing.assert_array_equal(made, run(numbered(source), steps))


@given(chains())
def test_views_that_do_the_same_are_equal(chain: tuple[Shape, list[Step]]) -> None:
    source, steps = chain
    view = normalize(source, steps)
    assume(view is not None)
    detour = [Reshape((prod(source),)), Reshape((*source, 1)), Reshape(source)]
    assert normalize(source, [*detour, *steps]) == view
    there_and_back = [*steps, *backwards(source, steps)]
    assert shapes(source, there_and_back)[-1] == source
    back = normalize(source, there_and_back)
    assert back is not None and not back.moves_data


@given(st.sampled_from([24, 36, 60]).flatmap(lambda n: st.tuples(chains(n), chains(n))))
def test_a_layout_becomes_another_by_one_permutation_or_not_at_all(
    pair: tuple[tuple[Shape, list[Step]], tuple[Shape, list[Step]]],
) -> None:
    first, second = (normalize(*chain) for chain in pair)
    assume(first is not None and second is not None)
    have, want = first.layout, second.layout
    turn = transposition(have, want)
    assume(turn is not None)
    shape, axes = turn
    turned = memory(have).reshape(shape).transpose(axes).ravel()
    np.testing.assert_array_equal(turned, memory(want))
    assert keeps_rows(have, want) == (not axes or axes[-1] == len(axes) - 1)


def test_digits_that_do_not_divide_have_no_common_refinement() -> None:
    turned = chained(row_major((4, 6)), (4, 6), (Permute((1, 0)),))
    assert turned == (Digit(1, 4), Digit(4, 6))
    assert by_axis(turned, (8, 3)) is None
    assert chained(turned, (8, 3), (Permute((1, 0)),)) is None
    assert split(turned, [8]) == (Digit(1, 4), Digit(8, 3), Digit(4, 2))
    assert split(turned, [3]) is None
    other = chained(row_major((3, 8)), (3, 8), (Permute((1, 0)),))
    assert other is not None and transposition(turned, other) is None


def test_neighbours_in_memory_and_index_are_one_digit() -> None:
    assert canonical([Digit(6, 4), Digit(2, 3), Digit(1, 2)]) == (Digit(1, 24),)
    assert canonical([Digit(2, 3), Digit(6, 4), Digit(1, 2)]) == (
        Digit(2, 3),
        Digit(6, 4),
        Digit(1, 2),
    )
    assert row_major((1, 1)) == ()


def test_a_tensor_that_runs_along_has_the_same_digits() -> None:
    layout = chained(row_major((4, 5, 6)), (4, 5, 6), (Permute((2, 0, 1)),))  # of [6, 4, 5]
    assert layout == (Digit(1, 20), Digit(20, 6))
    assert along(layout, (6, 4, 5), (6, 4, 5)) == layout
    assert along(layout, (6, 4, 5), (6, 1, 1)) == row_major((6,))  # broadcast
    assert along(layout, (6, 4, 5), (7, 4, 5)) == (Digit(1, 20), Digit(20, 7))
    divided = Digit(10, 2), Digit(1, 5), Digit(5, 2)  # the first axis of [4, 5] in two digits
    assert along(divided, (4, 5), (4, 1)) == row_major((4,))
    assert along(divided, (4, 5), (4, 3)) is not None and along(divided, (4, 5), (8, 5)) is None
