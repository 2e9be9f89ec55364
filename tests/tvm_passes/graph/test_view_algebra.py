"""Chains of reshapes and permutations: their normal form equals NumPy's doing."""

from math import prod

import numpy as np
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tvm_passes.graph.view_algebra import Permute, Reshape, Shape, View, as_permutation, normalize

Step = Reshape | Permute
PRIMES = [1, 1, 2, 2, 2, 3, 3, 5]


def run(x: NDArray[np.int64], steps: list[Step]) -> NDArray[np.int64]:
    for step in steps:
        x = x.reshape(step.shape) if isinstance(step, Reshape) else x.transpose(step.axes)
    return x


@st.composite
def shapes(draw: st.DrawFn, size: int | None = None) -> Shape:
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
def chains(draw: st.DrawFn) -> tuple[Shape, list[Step]]:
    source = shape = draw(shapes())
    steps: list[Step] = []
    for _ in range(draw(st.integers(0, 5))):
        if draw(st.booleans()):
            shape = draw(shapes(prod(shape)))
            steps.append(Reshape(shape))
        else:
            axes = tuple(draw(st.permutations(range(len(shape)))))
            shape = tuple(shape[axis] for axis in axes)
            steps.append(Permute(axes))
    return source, steps


def numbered(shape: Shape) -> NDArray[np.int64]:
    return np.arange(prod(shape)).reshape(shape)


@given(chains())
@example(((4, 3), [Reshape((6, 2))]))
@example(((1, 1), [Permute((1, 0))]))
def test_the_normal_form_does_what_the_chain_does(chain: tuple[Shape, list[Step]]) -> None:
    source, steps = chain
    view = normalize(source, steps)
    assume(view is not None)
    expected = run(numbered(source), steps)
    assert view.shape == expected.shape
    split = numbered(source).reshape(view.split).transpose(view.axes).reshape(view.shape)
    np.testing.assert_array_equal(split, expected)
    np.testing.assert_array_equal(run(numbered(source), view.steps(source)), expected)
    assert view.moves_data == (not np.array_equal(expected.ravel(), np.arange(expected.size)))
    permutations = [step for step in view.steps(source) if isinstance(step, Permute)]
    assert len(permutations) == view.moves_data


@given(chains())
def test_views_that_do_the_same_are_equal(chain: tuple[Shape, list[Step]]) -> None:
    source, steps = chain
    view = normalize(source, steps)
    assume(view is not None)
    assert normalize(source, view.steps(source)) == view
    detour = [Reshape((prod(source),)), Reshape((*source, 1)), Reshape(source)]
    assert normalize(source, [*detour, *steps]) == view


@given(chains())
def test_the_inverse_leads_back(chain: tuple[Shape, list[Step]]) -> None:
    source, steps = chain
    view = normalize(source, steps)
    assume(view is not None)
    back = view.inverse(source)
    there = run(numbered(source), view.steps(source))
    np.testing.assert_array_equal(run(there, back.steps(view.shape)), numbered(source))
    both = normalize(source, [*view.steps(source), *back.steps(view.shape)])
    assert both is not None and not both.moves_data


@given(shapes(), st.lists(st.integers(), max_size=4))
def test_reshapes_alone_never_move_data(source: Shape, seeds: list[int]) -> None:
    steps = [Reshape((prod(source),)), Reshape((1, prod(source))), Reshape(source)]
    view = normalize(source, steps[: len(seeds)])
    assert view is not None and not view.moves_data


@given(shapes(), st.randoms(use_true_random=False))
def test_a_permutation_is_recognised(source: Shape, random: object) -> None:
    axes = list(range(len(source)))
    random.shuffle(axes)  # type: ignore[attr-defined]
    view = normalize(source, [Permute(tuple(axes))])
    assert view is not None
    found = as_permutation(source, view)
    assert found is not None  # another one where axes have extent 1, with the same result
    np.testing.assert_array_equal(
        numbered(source).transpose(found), numbered(source).transpose(axes)
    )


def test_a_merge_is_no_permutation() -> None:
    view = normalize((2, 3, 4), [Permute((0, 2, 1)), Reshape((8, 3))])
    assert view == View((2, 3, 4), (0, 2, 1), (8, 3))
    assert as_permutation((2, 3, 4), view) is None


def test_a_reshape_across_permuted_factors_has_no_normal_form() -> None:
    assert normalize((4, 6), [Permute((1, 0)), Reshape((8, 3))]) is None


def test_attention_heads() -> None:
    """[tokens, qkv, heads, width] of MobileViT and back: one permutation each."""
    tokens, heads, width = 256, 4, 36
    split = [Reshape((1, tokens, heads, width)), Permute((0, 2, 1, 3))]
    view = normalize((1, tokens, heads * width), split)
    assert view == View((tokens, heads, width), (1, 0, 2), (1, heads, tokens, width))
    back = [*split, Permute((0, 2, 1, 3)), Reshape((1, tokens, heads * width))]
    joined = normalize((1, tokens, heads * width), back)
    assert joined is not None and joined.steps((1, tokens, heads * width)) == []
