"""Percentiles, ratios and shares of the peak."""

import pytest

from scripts.benchmark.statistics import Summary, compare, is_integer, summarize


def _summary(milliseconds: float) -> Summary:
    return Summary(milliseconds, milliseconds, milliseconds, 1)


TIMES = {
    "torch float32": _summary(20),
    "pocketvit int8 w8a8": _summary(2),
    "openvino int8": _summary(5),
    "openvino bf16": _summary(4),
}


def test_summarize_gives_milliseconds() -> None:
    found = summarize([1_000_000 * value for value in range(101)])
    assert (found.p10_ms, found.median_ms, found.p90_ms, found.runs) == (10, 50, 90, 101)


def test_ratios_are_ours_by_theirs() -> None:
    found = compare("net", 400_000_000, TIMES, {}, 500.0)
    assert [row.name for row in found.rows] == sorted(TIMES, key=lambda name: TIMES[name].median_ms)
    ratios = {row.name: row.ratio for row in found.rows}
    assert ratios["torch float32"] == pytest.approx(0.1)
    assert ratios["pocketvit int8 w8a8"] == 1
    assert found.to_fastest == pytest.approx(0.5)
    assert found.to_fastest_integer == pytest.approx(0.4)


def test_throughput_and_share_of_the_peak() -> None:
    ours = compare("net", 400_000_000, TIMES, {}, 500.0).rows[0]
    assert ours.gmacs == pytest.approx(200)
    assert ours.peak_share == pytest.approx(0.4)
    assert compare("net", 1, TIMES, {}, None).rows[0].peak_share is None


def test_what_did_not_run_comes_last_with_its_reason() -> None:
    found = compare("net", 1, TIMES, {"litert int8": "is not set up"}, None)
    assert found.rows[-1].time is None
    assert (found.rows[-1].name, found.rows[-1].problem) == ("litert int8", "is not set up")


@pytest.mark.parametrize("times", [{}, {"torch float32": _summary(1)}])
def test_without_ours_there_is_no_ratio(times: dict[str, Summary]) -> None:
    found = compare("net", 1, times, {}, None)
    assert found.to_fastest is None and found.to_fastest_integer is None
    assert all(row.ratio is None for row in found.rows)


def test_without_an_integer_peer_there_is_no_ratio_to_it() -> None:
    times = {name: TIMES[name] for name in ("pocketvit int8 w8a8", "torch float32")}
    found = compare("net", 1, times, {}, None)
    assert found.to_fastest == pytest.approx(0.1)
    assert found.to_fastest_integer is None


def test_precision_is_read_from_the_name() -> None:
    assert is_integer("openvino int8 bf16")
    assert not is_integer("openvino bf16")
