"""Candidates for the parameters of each family of formats, as batches for the engine.

A generator looks at the values of every group, `[*groups, n]`, and proposes pairs `[C, *groups]`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.quant.observers import SCALE_FLOOR
from pipeline.quant.search.engine import Pair


class Grid(NamedTuple):
    """Candidates, and the spacing `[*groups]` of their first parameters."""

    pairs: Pair
    spacing: Tensor


@dataclass(frozen=True)
class Codes:
    """Range of codes of a uniform format.

    Attributes:
        qmin: least code.
        qmax: greatest code.
        symmetric: the zero point is 0.
    """

    qmin: int
    qmax: int
    symmetric: bool

    @property
    def steps(self) -> int:
        """Steps between the extremes."""
        return self.qmax - self.qmin


def scale_grid(values: Tensor, codes: Codes, low: float, high: float, count: int) -> Grid:
    """Multiples from `low` to `high` of the scale that just covers every group's range.

    Sources: EasyQuant (2020), PTQ4ViT (ECCV 2022), Liu et al. (NeurIPS 2021), Q-HyViT (2023), which
    differ in `low`, `high` and `count`.
    """
    least, greatest = values.amin(-1).clamp(max=0), values.amax(-1).clamp(min=0)
    if codes.symmetric:
        whole = torch.maximum(greatest, -least) / codes.qmax
        zero = torch.zeros_like(whole)
    else:
        whole = (greatest - least) / codes.steps
        zero = torch.floor(codes.qmin - least / whole.clamp(min=SCALE_FLOOR) + 0.5)
        zero = zero.clamp(codes.qmin, codes.qmax)
    factors = torch.linspace(low, high, count).reshape(-1, *[1] * whole.dim())
    pairs = Pair((whole * factors).clamp(min=SCALE_FLOOR), zero.expand(count, *zero.shape))
    return Grid(pairs, whole * (high - low) / max(count - 1, 1))


def scale_zero_grid(values: Tensor, codes: Codes, zero_points: int, count: int) -> Grid:
    """Scales by zero points: AdaLog (ECCV 2024), section 3.4, first step.

    Widths go from the span of the middle 80 % of the values to the whole one; there are at least
    two, whatever is asked for.
    """
    zero_points = min(zero_points, codes.steps + 1, count // 2)
    widths = count // zero_points
    quantiles = torch.quantile(_thinned(values), torch.tensor([0.1, 0.9]), dim=-1)
    inner = quantiles[1] - quantiles[0]
    outer = values.amax(-1).clamp(min=0) - values.amin(-1).clamp(max=0)
    parts = torch.linspace(0, 1, widths).reshape(-1, *[1] * outer.dim())
    scales = ((inner + (outer - inner) * parts) / codes.steps).clamp(min=SCALE_FLOOR)
    middle = _middle_zero(values, codes, zero_points)
    zeros = middle + torch.arange(zero_points).reshape(-1, *[1] * outer.dim())
    zeros = zeros.clamp(codes.qmin, codes.qmax)
    first = scales.repeat_interleave(zero_points, dim=0)
    second = zeros.repeat(widths, *[1] * outer.dim())
    return Grid(Pair(first, second), (outer - inner) / codes.steps / max(widths - 1, 1))


def _middle_zero(values: Tensor, codes: Codes, zero_points: int) -> Tensor:
    """Least zero point of a window around that of the whole range."""
    least, greatest = values.amin(-1).clamp(max=0), values.amax(-1).clamp(min=0)
    scale = ((greatest - least) / codes.steps).clamp(min=SCALE_FLOOR)
    zero = torch.floor(codes.qmin - least / scale + 0.5)
    return (zero - zero_points // 2).clamp(codes.qmin, codes.qmax - zero_points + 1)


def logarithmic_grid(values: Tensor, bases: list[int], scales: int) -> Grid:
    """Scales from the 90th percentile of the values to the greatest, by bases.

    Args:
        values: `[n]`, shifted, or `[1]` with the fixed scale.
        bases: numerators of the exponents.
        scales: number of scales.
    """
    greatest = values.max()
    lowest = torch.quantile(_thinned(values[values > 0]), 0.9) if scales > 1 else greatest
    spread = torch.linspace(float(lowest), float(greatest), scales).clamp(min=SCALE_FLOOR)
    pairs = torch.cartesian_prod(spread, torch.tensor(bases, dtype=torch.float32))
    return Grid(Pair(pairs[:, 0], pairs[:, 1]), (greatest - lowest) / max(scales - 1, 1))


def twin_grid(greatest: float, half: int, largest_ratio: int, scales: int) -> Grid:
    """Coarse steps that reach 40 to 100 % of the greatest value, by ratios."""
    low = 0.4 if scales > 1 else 1.0
    coarse = torch.linspace(low, 1.0, scales) * max(greatest, SCALE_FLOOR) / max(half - 1, 1)
    pairs = torch.cartesian_prod(coarse, torch.arange(largest_ratio + 1.0))
    return Grid(Pair(pairs[:, 0] / torch.exp2(pairs[:, 1]), pairs[:, 1]), torch.tensor(0.0))


def _thinned(values: Tensor, most: int = 1 << 20) -> Tensor:
    """Every n-th value of the last axis: quantiles need no more, and refuse many more."""
    return values[..., :: max(values.shape[-1] // most, 1)]
