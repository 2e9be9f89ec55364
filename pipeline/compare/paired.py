"""How sure is a difference between two methods that were tried on the same photos?

What both get right or wrong says nothing about the difference, so that paired figures are much
tighter than those of two independent samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

RESAMPLES = 10_000
CONFIDENCE = 0.95
_BATCH = 1 << 24  # resampled values in memory

Hits = npt.NDArray[np.bool_]
Energies = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A figure of `a` minus that of `b`, and its bootstrap.

    Attributes:
        value: on the photos themselves.
        low: lower end of the 95 % percentile interval; NaN with fewer than two photos.
        high: its upper end.
        p: two-sided p-value: how often resampled photos would turn the sign; at least
            2 / (resamples + 1).
    """

    value: float
    low: float
    high: float
    p: float


def top1_difference(a: Hits, b: Hits, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """Paired bootstrap over photos of the top-1 of `a` minus that of `b`, as shares.

    Args:
        a: `[photos]`, whether a method's top class is the label.
        b: the same of another one, in the same order.
        seed: of the resampling.
        resamples: how many.
    """
    gain = a.astype(np.float64) - b.astype(np.float64)
    return _bootstrap((gain,), lambda gain, axis: np.mean(gain, axis=axis), seed, resamples)


def sqnr_difference(
    a: Energies, b: Energies, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Paired bootstrap over photos of the logit SQNR of `a` minus that of `b`, in dB.

    The signal is the same, so that it is the ratio of the noise energies alone that counts.

    Args:
        a: float64 `[photos]`, a method's noise, see `noise_energy`.
        b: the same of another one, in the same order.
        seed: of the resampling.
        resamples: how many.
    """
    return _bootstrap((a, b), _decibels, seed, resamples)


def mcnemar(a: Hits, b: Hits) -> float:
    """McNemar's exact test: two-sided p-value of equal chances for the photos that differ.

    Args:
        a: `[photos]`, whether a method's top class is the label.
        b: the same of another one, in the same order.
    """
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(~a & b))
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b).pvalue)


def noise_energy(reference: npt.NDArray[Any], other: npt.NDArray[Any]) -> Energies:
    """Sum of the squared differences of two `[photos, classes]` arrays of logits, `[photos]`."""
    error = reference.astype(np.float64) - other.astype(np.float64)
    return np.asarray(np.sum(error**2, axis=1))


def _decibels(a: Energies, b: Energies, axis: int) -> Any:
    noise_a, noise_b = np.sum(a, axis=axis), np.sum(b, axis=axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(noise_a == noise_b, 1.0, noise_b / noise_a)  # both may be without noise
        return 10 * np.log10(ratio)


def _bootstrap(
    samples: tuple[Energies, ...], statistic: Callable[..., Any], seed: int, resamples: int
) -> Difference:
    photos = len(samples[0])
    value = float(statistic(*samples, axis=-1))
    if photos < 2:
        return Difference(value, math.nan, math.nan, 1.0)
    with np.errstate(invalid="ignore"):  # scipy's standard error of infinite figures
        found = stats.bootstrap(
            samples,
            statistic,
            n_resamples=resamples,
            batch=max(1, _BATCH // photos),
            vectorized=True,
            paired=True,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    drawn = found.bootstrap_distribution
    # the photos themselves count as one resample, so that p is never zero
    tail = min(np.sum(drawn <= 0), np.sum(drawn >= 0)) + 1
    low, high = found.confidence_interval
    return Difference(value, float(low), float(high), min(1.0, 2 * tail / (resamples + 1)))
