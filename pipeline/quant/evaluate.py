"""Figures that compare logits with labels and with each other."""

from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.floating[Any]]


def top1(logits: Logits, labels: npt.NDArray[np.integer[Any]]) -> float:
    """Share of photos whose largest logit is the labelled class.

    Args:
        logits: `[N, classes]`.
        labels: `[N]` class indices.
    """
    return float(np.mean(logits.argmax(axis=1) == labels))


def agreement(reference: Logits, other: Logits) -> float:
    """Share of photos on which two `[N, classes]` arrays of logits have the same top class."""
    return float(np.mean(reference.argmax(axis=1) == other.argmax(axis=1)))


def sqnr_db(reference: Logits, other: Logits) -> float:
    """Signal to quantization noise ratio `10 log10(sum ref^2 / sum (ref - other)^2)` in dB.

    Infinite where the arrays are equal.
    """
    exact = reference.astype(np.float64)
    noise = float(np.sum((exact - other) ** 2))
    signal = float(np.sum(exact**2))
    return float("inf") if noise == 0 else float(10 * np.log10(signal / noise))
