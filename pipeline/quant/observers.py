"""Observers: from a histogram to the range of a quantizer. One small class each.

A new one is a frozen dataclass with `range` plus a line in `OBSERVERS`, whose keys are the names
that recipes use.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline.quant import adalog
from pipeline.quant.formats import AdaLog, Uniform
from pipeline.quant.histogram import Histogram, LogHistogram
from pipeline.quant.recipe import Activations

SCALE_FLOOR = 2.0**-20
"""Smallest scale: a tensor that is constantly zero still gets a usable one."""

HEADROOM_16 = 1.25
"""16-bit formats extend this far beyond what calibration saw, for a third of a bit."""


_POWER = 2.4
"""Exponent of the error. More than 2 weighs clipping, which hits few values hard, above rounding,
and so protects the few tokens that carry the outliers."""


class Observer(Protocol):
    """Chooses the range that a uniform format shall cover."""

    def range(self, seen: Histogram, target: Uniform) -> tuple[float, float]:
        """The smallest and largest value to represent, lowest first."""
        ...


@dataclass(frozen=True)
class MinMax:
    """The extremes of all photos: nothing is clipped."""

    def range(self, seen: Histogram, target: Uniform) -> tuple[float, float]:
        """See `Observer`."""
        return seen.low, seen.high


@dataclass(frozen=True)
class Percentile:
    """Clips the same small share of values at both ends.

    Attributes:
        percent: share of values inside either bound.
    """

    percent: float

    def range(self, seen: Histogram, target: Uniform) -> tuple[float, float]:
        """See `Observer`."""
        values, counts = seen.points()
        share = torch.cumsum(counts, 0) / counts.sum()
        outside = 1 - self.percent / 100
        low = values[torch.searchsorted(share, outside).clamp(max=len(values) - 1)]
        high = values[torch.searchsorted(share, 1 - outside).clamp(max=len(values) - 1)]
        return float(low), float(high)


@dataclass(frozen=True)
class Mse:
    """The range with the least rounding and clipping error over the histogram.

    Both bounds shrink together, then each alone.

    Attributes:
        smallest: least fraction of the extremes that is tried.
        steps: number of fractions tried.
    """

    smallest: float = 0.1
    steps: int = 91

    def range(self, seen: Histogram, target: Uniform) -> tuple[float, float]:
        """See `Observer`."""
        values, counts = seen.points()
        fractions = torch.linspace(self.smallest, 1.0, self.steps, dtype=torch.float64)
        lowest, highest = min(seen.low, 0.0), max(seen.high, 0.0)

        def best(lows: Tensor, highs: Tensor) -> tuple[float, float]:
            pairs = list(zip(lows.tolist(), highs.tolist(), strict=True))
            errors = [_error(values, counts, pair, target) for pair in pairs]
            return pairs[int(torch.stack(errors).argmin())]

        low, high = best(lowest * fractions, highest * fractions)
        if target.symmetric:
            return low, high
        fractions = torch.linspace(0.6, 1.3, 29, dtype=torch.float64)
        low, high = best((low * fractions).clamp(min=lowest), torch.full_like(fractions, high))
        return best(torch.full_like(fractions, low), (high * fractions).clamp(max=highest))


def _error(values: Tensor, counts: Tensor, bounds: tuple[float, float], target: Uniform) -> Tensor:
    scale, zero_point = uniform_parameters(bounds, target)
    codes = torch.floor(values / scale + 0.5) + zero_point
    restored = (codes.clamp(target.qmin, target.qmax) - zero_point) * scale
    return ((restored - values).abs() ** _POWER * counts).sum()


OBSERVERS: dict[str, Callable[[Activations], Observer]] = {
    "minmax": lambda _: MinMax(),
    "percentile": lambda activations: Percentile(activations.percentile),
    "mse": lambda _: Mse(),
}


def uniform_parameters(bounds: tuple[float, float], target: Uniform) -> tuple[float, int]:
    """Scale and zero point with which the codes of a format cover a range.

    The range is extended to contain zero, which every format represents exactly.

    Args:
        bounds: smallest and largest value.
        target: the format.

    Returns:
        The scale, a value of float32, and the zero point.
    """
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    if target.symmetric:
        scale = max(-low, high) / target.qmax
        return _float32(max(scale, SCALE_FLOOR)), 0
    scale = _float32(max((high - low) / (target.qmax - target.qmin), SCALE_FLOOR))
    zero_point = round(target.qmin - low / scale)
    return scale, min(max(zero_point, target.qmin), target.qmax)


def adalog_parameters(seen: LogHistogram, target: AdaLog) -> tuple[float, int]:
    """Scale and exponent numerator `q` with the least squared error over the histogram.

    What the format fixes is not searched. Source: AdaLog (ECCV 2024), section 3.3.
    """
    values, counts = seen.points()
    scales = [target.fixed_scale]
    if target.fixed_scale is None:
        scales = [seen.high * f for f in torch.linspace(0.5, 1.0, 26).tolist()]
    bases = range(1, 38) if target.q is None else [target.q]
    candidates = [(_float32(max(s or 0.0, SCALE_FLOOR)), q) for s in scales for q in bases]
    errors = [_adalog_error(values, counts, scale, q, target.bits) for scale, q in candidates]
    return candidates[min(range(len(errors)), key=errors.__getitem__)]


def _adalog_error(values: Tensor, counts: Tensor, scale: float, q: int, bits: int) -> float:
    at = torch.tensor(scale)
    codes = adalog.encode(values.float(), at, q, bits, 0.0)
    restored = adalog.decode(codes, at, q, bits, 0.0).double()
    return float(((restored - values) ** 2 * counts).sum())


def _float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))
