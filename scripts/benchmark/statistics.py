"""Figures of a run: percentiles, ratios, shares of the peak."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

OURS = "pocketvit"


@dataclass(frozen=True)
class Summary:
    """Milliseconds of one inference over all runs of a contestant."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int


def summarize(nanoseconds: Sequence[int]) -> Summary:
    """Percentiles of a contestant's times."""
    p10, median, p90 = np.percentile(np.array(nanoseconds) / 1e6, [10, 50, 90])
    return Summary(float(median), float(p10), float(p90), len(nanoseconds))


@dataclass(frozen=True)
class Row:
    """One contestant's line.

    Attributes:
        name: peer and variant.
        integer: whether its products are in int8.
        time: None where it did not run.
        problem: why it did not run.
        ratio: our time by this one: below 1 where we are faster; None where one is missing.
        gmacs: 10^9 multiply-accumulates per second.
        peak_share: of the machine's int8 peak.
    """

    name: str
    integer: bool
    time: Summary | None
    problem: str = ""
    ratio: float | None = None
    gmacs: float | None = None
    peak_share: float | None = None


@dataclass(frozen=True)
class Comparison:
    """All contestants on one network.

    Attributes:
        network: its name.
        macs: multiply-accumulates of one inference.
        peak_gmacs: the machine's int8 peak, measured in the same run; None where it is not known.
        rows: fastest first, those that did not run last.
        to_fastest: our time by that of the fastest peer.
        to_fastest_integer: our time by that of the fastest peer that computes in int8.
    """

    network: str
    macs: int
    peak_gmacs: float | None
    rows: tuple[Row, ...]
    to_fastest: float | None
    to_fastest_integer: float | None


def compare(
    network: str,
    macs: int,
    times: Mapping[str, Summary],
    problems: Mapping[str, str],
    peak_gmacs: float | None,
) -> Comparison:
    """Set the contestants' times in relation.

    Args:
        network: name.
        macs: of one inference.
        times: of those that ran, by "peer variant".
        problems: of the others.
        peak_gmacs: the machine's peak.
    """
    ours = next((time for name, time in times.items() if name.startswith(OURS)), None)

    def ratio(to: Summary | None) -> float | None:
        return ours.median_ms / to.median_ms if ours and to else None

    rows = []
    for name, time in sorted(times.items(), key=lambda item: item[1].median_ms):
        gmacs = macs / time.median_ms / 1e6
        share = gmacs / peak_gmacs if peak_gmacs else None
        rows.append(Row(name, is_integer(name), time, "", ratio(time), gmacs, share))
    rows += [Row(name, is_integer(name), None, reason) for name, reason in problems.items()]
    peers = [row for row in rows if row.time and not row.name.startswith(OURS)]
    fastest = next((row.time for row in peers), None)
    fastest_integer = next((row.time for row in peers if row.integer), None)
    return Comparison(
        network, macs, peak_gmacs, tuple(rows), ratio(fastest), ratio(fastest_integer)
    )


def is_integer(name: str) -> bool:
    """Whether a contestant computes its products in int8, by its name."""
    return "int8" in name.split()
