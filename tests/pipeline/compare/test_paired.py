"""Paired statistics, against closed forms and other software's definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.compare.paired import mcnemar, noise_energy, sqnr_difference, top1_difference
from pipeline.quant.evaluate import sqnr_db

PHOTOS = 400


def hits(both: int, only_a: int, only_b: int) -> tuple[np.ndarray, np.ndarray]:
    """Two methods on `PHOTOS` photos: right on so many both, and alone."""
    kinds = np.repeat([3, 1, 2, 0], [both, only_a, only_b, PHOTOS - both - only_a - only_b])
    return (kinds & 1).astype(bool), (kinds & 2).astype(bool)


def test_the_interval_is_that_of_the_normal_approximation() -> None:
    a, b = hits(200, 60, 40)
    found = top1_difference(a, b)
    deviation = math.sqrt((0.25 - 0.05**2) / PHOTOS)  # of a mean of values in {-1, 0, 1}
    assert found.value == pytest.approx(0.05)
    assert found.low == pytest.approx(0.05 - 1.96 * deviation, abs=0.004)
    assert found.high == pytest.approx(0.05 + 1.96 * deviation, abs=0.004)
    assert found.p == pytest.approx(2 * stats.norm.sf(0.05 / deviation), abs=0.015)


def test_what_both_get_right_does_not_count() -> None:
    few, many = (top1_difference(*hits(both, 30, 10)) for both in (0, 350))
    assert (few.low, few.high) == pytest.approx((many.low, many.high), abs=0.004)


def test_the_same_seed_gives_the_same_figures() -> None:
    a, b = hits(100, 30, 25)
    assert top1_difference(a, b, seed=1) == top1_difference(a, b, seed=1)
    assert top1_difference(a, b, seed=1) != top1_difference(a, b, seed=2)


def test_a_clear_difference_has_the_smallest_p_that_resampling_can_show() -> None:
    found = top1_difference(*hits(0, 300, 0), resamples=999)
    assert found.p == pytest.approx(2 / 1000)
    assert 0 < found.low < found.value == 0.75 < found.high


def test_equal_methods_do_not_differ() -> None:
    a, _ = hits(100, 50, 0)
    found = top1_difference(a, a)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert mcnemar(a, a) == 1


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=30))
def test_exchanging_the_methods_turns_the_difference(pairs: list[tuple[bool, bool]]) -> None:
    a, b = np.array(pairs).T
    found, turned = top1_difference(a, b, resamples=200), top1_difference(b, a, resamples=200)
    assert (found.value, found.low) == pytest.approx((-turned.value, -turned.high))
    assert found.p == turned.p
    assert found.low <= found.value <= found.high or len(pairs) < 10


def test_mcnemar_is_the_binomial_test_of_the_discordant_photos() -> None:
    a, b = hits(100, 9, 1)
    assert mcnemar(a, b) == pytest.approx(2 * (10 + 1) / 2**10)


def test_the_difference_of_sqnr_is_that_of_the_two_figures() -> None:
    random = np.random.default_rng(0)
    reference = random.normal(size=(PHOTOS, 10))
    a, b = (reference + random.normal(size=(PHOTOS, 10), scale=scale) for scale in (0.1, 0.11))
    found = sqnr_difference(noise_energy(reference, a), noise_energy(reference, b))
    assert found.value == pytest.approx(sqnr_db(reference, a) - sqnr_db(reference, b))
    assert found.low < found.value < found.high
    assert found.high - found.low < 1  # the mean of 4,000 squares is sure to 2 percent
    assert found.p < 0.01


def test_without_noise_nothing_is_undefined() -> None:
    none, some = np.zeros(20), np.ones(20)
    assert sqnr_difference(none, none).value == 0
    assert sqnr_difference(none, none).p == 1
    assert sqnr_difference(none, some).value == math.inf
    assert sqnr_difference(some, none).value == -math.inf


def test_one_photo_has_no_interval() -> None:
    found = top1_difference(np.array([True]), np.array([False]))
    assert found.value == 1 and math.isnan(found.low) and found.p == 1
