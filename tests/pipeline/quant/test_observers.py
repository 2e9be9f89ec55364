"""Statistics are exact and independent of order; observers find the ranges they promise."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.quant.formats import INT16, int8
from pipeline.quant.histogram import Histogram, LogHistogram
from pipeline.quant.observers import (
    SCALE_FLOOR,
    MinMax,
    Mse,
    Percentile,
    logarithmic_quantizer,
    uniform_parameters,
)
from pipeline.quant.quantizers.logarithmic import Logarithmic


def _seen(*batches: Tensor) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.update(batch)
    return histogram


def test_histogram_does_not_depend_on_the_order_of_batches() -> None:
    random = torch.Generator().manual_seed(0)
    batches = [torch.randn(1000, generator=random) * 10.0**e for e in (-3, 2, 0)]
    first, second = _seen(*batches), _seen(*reversed(batches))
    assert first.width == second.width
    assert torch.equal(first.counts, second.counts)
    assert int(first.counts.sum()) == 3000


@given(st.lists(st.floats(-(2.0**30), 2.0**30, width=32), min_size=1, max_size=20))
def test_every_value_lies_in_the_bin_that_counts_it(values: list[float]) -> None:
    histogram = _seen(*(torch.tensor([v]) for v in values))
    assert histogram.low == min(values) and histogram.high == max(values)
    centres, counts = histogram.points()
    weights = counts.numpy().astype(int)
    restored = np.repeat(centres.numpy(), weights)
    if histogram.width:
        assert np.abs(np.sort(values) - restored).max() <= histogram.width


def test_leading_zeros_are_counted() -> None:
    histogram = _seen(torch.zeros(7), torch.tensor([1.0]))
    assert histogram.points()[1].tolist() == [7, 1]


def test_minmax_takes_the_extremes() -> None:
    assert MinMax().range(_seen(torch.tensor([-3.0, 0.5]), torch.tensor([2.0])), int8(8)) == (-3, 2)


def test_percentile_ignores_the_outlier_that_minmax_keeps() -> None:
    values = torch.cat([torch.linspace(-1, 1, 99_999), torch.tensor([50.0])])
    low, high = Percentile(99.99).range(_seen(values), int8(8))
    assert (low, high) == pytest.approx((-1, 1), abs=0.02)


def test_mse_clips_a_rare_outlier_and_keeps_a_bounded_range() -> None:
    bulk = torch.linspace(-1, 1, 99_999)
    low, high = Mse().range(_seen(bulk), int8(8))
    assert (low, high) == pytest.approx((-1, 1), rel=0.05)
    _, clipped = Mse().range(_seen(torch.cat([bulk, torch.tensor([8.0])])), int8(4))
    assert clipped < 4


def test_mse_is_never_worse_than_minmax() -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(1)) ** 3
    histogram, target = _seen(values), int8(8)

    def error(bounds: tuple[float, float]) -> float:
        scale, zero = uniform_parameters(bounds, target)
        codes = (torch.floor(values / scale + 0.5) + zero).clamp(target.qmin, target.qmax)
        return float((((codes - zero) * scale - values) ** 2).mean())

    assert error(Mse().range(histogram, target)) < error(MinMax().range(histogram, target))


@given(st.floats(-100, 100), st.floats(-100, 100))
def test_zero_is_always_represented_exactly(a: float, b: float) -> None:
    target = int8(8)
    scale, zero = uniform_parameters((min(a, b), max(a, b)), target)
    assert scale > 0 and target.qmin <= zero <= target.qmax
    assert scale == np.float32(scale)


def test_positive_range_uses_all_codes() -> None:
    assert uniform_parameters((0.5, 255.0), int8(8)) == (1.0, -128)


def test_symmetric_formats_have_no_zero_point() -> None:
    assert uniform_parameters((-1.0, 127.0), int8(8, symmetric=True)) == (1.0, 0)
    assert uniform_parameters((0.0, 32767.0), INT16) == (1.0, 0)


def test_constant_zero_gets_the_smallest_scale() -> None:
    histogram = _seen(torch.zeros(5))
    for observer in (MinMax(), Percentile(99.99), Mse()):
        assert uniform_parameters(observer.range(histogram, int8(8)), int8(8))[0] == SCALE_FLOOR


def test_constant_value_is_represented() -> None:
    histogram = _seen(torch.full((5,), 3.0))
    for observer in (MinMax(), Percentile(99.99), Mse()):
        scale, zero = uniform_parameters(observer.range(histogram, int8(8)), int8(8))
        assert min(round(3.0 / scale) + zero, 127) - zero == pytest.approx(3.0 / scale, abs=0.5)


def test_adalog_search_prefers_a_fine_base_for_a_narrow_range() -> None:
    narrow, wide = LogHistogram(0.0), LogHistogram(0.0)
    narrow.update(torch.linspace(0.5, 1, 1000))
    wide.update(torch.exp2(-torch.linspace(0, 12, 1000)))
    target = Logarithmic(bits=4, q=None, fixed_scale=1.0)
    assert logarithmic_quantizer(narrow, target).q < logarithmic_quantizer(wide, target).q


def test_adalog_keeps_a_fixed_base_and_finds_the_scale() -> None:
    histogram = LogHistogram(0.17)
    histogram.update(torch.linspace(-0.17, 4.0, 5000))
    found = logarithmic_quantizer(histogram, Logarithmic(bits=8, q=2, shift=0.17))
    assert found.q == 2
    assert found.scale == pytest.approx(4.17, rel=0.05)
