"""Observers: from a histogram to the range of a quantizer. One small class each.

A new one is a frozen dataclass with `range` plus a line in `OBSERVERS`, whose keys are the names
that recipes use.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from pipeline.quant.histogram import Histogram, LogHistogram
from pipeline.quant.quantizers import logarithmic, twin
from pipeline.quant.quantizers.logarithmic import Logarithmic, LogarithmicQuantizer
from pipeline.quant.quantizers.twin import Twin, TwinQuantizer
from pipeline.quant.quantizers.uniform import Uniform, UniformQuantizer
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


def uniform_quantizer(bounds: tuple[float, float], target: Uniform) -> UniformQuantizer:
    """A quantizer with one scale whose codes cover a range; see `uniform_parameters`."""
    if target.fixed is not None:
        scale, zero = target.fixed
    else:
        scale, zero = uniform_parameters(bounds, target)
    return UniformQuantizer(target, (scale,), (zero,))


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
        return as_float32(max(scale, SCALE_FLOOR)), 0
    scale = as_float32(max((high - low) / (target.qmax - target.qmin), SCALE_FLOOR))
    zero_point = round(target.qmin - low / scale)
    return scale, min(max(zero_point, target.qmin), target.qmax)


_ADALOG_BASES = range(1, 138)


def logarithmic_quantizer(seen: LogHistogram | None, target: Logarithmic) -> LogarithmicQuantizer:
    """Scale and exponent numerator `q` with the least squared error over the histogram.

    What the format fixes is not searched; where it fixes all, `seen` may be None. Source: AdaLog
    (ECCV 2024), section 3.3.
    """
    if target.fixed_scale is not None and target.q is not None:
        return LogarithmicQuantizer(target, target.fixed_scale, target.q)
    assert seen is not None
    values, counts = seen.points()
    scales = torch.tensor([target.fixed_scale or 0.0])
    if target.fixed_scale is None:
        scales = seen.high * torch.linspace(0.5, 1.0, 26)
    bases = torch.tensor(_ADALOG_BASES if target.q is None else [target.q])
    pairs = torch.cartesian_prod(scales.clamp(min=SCALE_FLOOR), bases.float())
    unshifted = replace(target, shift=0.0)

    def restored(scale: Tensor, q: Tensor) -> Tensor:
        return logarithmic.fake(values.float(), scale, q, unshifted)

    best = _least_error(pairs, restored, values, counts)
    return LogarithmicQuantizer(target, float(best[0]), int(best[1]))


def twin_quantizer(seen: Histogram, target: Twin) -> TwinQuantizer:
    """Steps with the least squared error over the histogram.

    The coarse range reaches the greatest value, or a little less where it is signed.
    """
    values, counts = seen.points()
    fractions = torch.linspace(0.4, 1.0, 31) if target.signed else torch.ones(1)
    coarse = fractions * max(seen.high, SCALE_FLOOR) / max(target.half - 1, 1)
    ratios = torch.arange(target.largest_ratio + 1)
    pairs = torch.cartesian_prod(coarse, ratios.float())
    pairs[:, 0] /= torch.exp2(pairs[:, 1])

    def restored(scale: Tensor, ratio: Tensor) -> Tensor:
        return twin.fake(values.float(), scale, ratio, target)

    best = _least_error(pairs, restored, values, counts)
    return TwinQuantizer(target, max(float(best[0]), SCALE_FLOOR**2), int(best[1]))


def _least_error(
    pairs: Tensor, restored: Callable[[Tensor, Tensor], Tensor], values: Tensor, counts: Tensor
) -> Tensor:
    """The pair `[2]` of parameters, among `[C, 2]`, that restores the values best."""
    errors = [
        ((restored(first, second).double() - values) ** 2 * counts).sum(dim=1)
        for first, second in (chunk.unsqueeze(2).unbind(1) for chunk in torch.split(pairs, 256))
    ]
    return pairs[int(torch.cat(errors).argmin())]


def as_float32(value: float) -> float:
    """The nearest value of float32."""
    return float(torch.tensor(value, dtype=torch.float32))
