"""Streaming statistics of one tensor: constant memory, however many photos pass by.

Both histograms are exact sums of integer counts, so the result does not depend on the order of the
photos, nor on how they were batched.
"""

import math

import torch
from torch import Tensor

_HALF_BINS = 8192
_LOG_STEPS = 64  # bins per octave
_LOG_LOWEST = -40  # octaves
_LOG_HIGHEST = 24


class Histogram:
    """Counts over uniform bins around zero, with exact extremes.

    Bins are `width = 2^e` wide and aligned with zero. When a value falls outside, the width doubles
    and neighbours merge, which is exact.

    Attributes:
        low: smallest value seen, `inf` before the first.
        high: largest value seen, `-inf` before the first.
        counts: int64 `[16384]`; bin `i` begins at `(i - 8192) * width`.
        width: width of a bin; 0.0 while all values were zero.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.low = math.inf
        self.high = -math.inf
        self.width = 0.0
        self.counts = torch.zeros(2 * _HALF_BINS, dtype=torch.int64)
        self._zeros = 0

    def update(self, values: Tensor) -> None:
        """Add a finite float32 tensor of any shape."""
        low, high = (float(v) for v in torch.aminmax(values))
        self.low, self.high = min(self.low, low), max(self.high, high)
        reach = max(-low, high)
        if reach == 0.0 and self.width == 0.0:
            self._zeros += values.numel()
            return
        self._widen(reach)
        bins = torch.floor(values.flatten() / self.width).to(torch.int64) + _HALF_BINS
        self.counts += torch.bincount(bins, minlength=2 * _HALF_BINS)

    def _widen(self, reach: float) -> None:
        if self.width == 0.0:
            # The bound keeps widths normal numbers of float32, whatever is measured.
            exponent = max(math.frexp(reach)[1], -60) - int(math.log2(_HALF_BINS))
            self.width = 2.0**exponent
            self.counts[_HALF_BINS] = self._zeros
        while reach >= self.width * _HALF_BINS:
            self.width *= 2
            merged = self.counts.reshape(-1, 2).sum(dim=1)
            quarter = _HALF_BINS // 2
            self.counts = torch.zeros_like(self.counts)
            self.counts[quarter : 3 * quarter] = merged

    def points(self) -> tuple[Tensor, Tensor]:
        """Centres of the non-empty bins (float64, ascending) and their counts (float64)."""
        if self.width == 0.0:
            return torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        filled = torch.nonzero(self.counts).flatten()
        centres = (filled.double() - _HALF_BINS + 0.5) * self.width
        return centres.clamp(self.low, self.high), self.counts[filled].double()


class LogHistogram:
    """Counts over the logarithm of non-negative values, for logarithmic formats.

    Attributes:
        shift: added to every value first.
        high: largest shifted value seen.
        counts: int64, 64 bins per octave from 2^-40 to 2^24; smaller values are left out, since
            every format makes them zero.
    """

    def __init__(self, shift: float) -> None:
        """Start empty; `shift` is added to every value."""
        self.shift = shift
        self.high = 0.0
        self.counts = torch.zeros((_LOG_HIGHEST - _LOG_LOWEST) * _LOG_STEPS, dtype=torch.int64)

    def update(self, values: Tensor) -> None:
        """Add a finite float32 tensor of any shape."""
        shifted = values.flatten() + self.shift
        self.high = max(self.high, float(shifted.max()))
        shifted = shifted[shifted > 2.0**_LOG_LOWEST]
        bins = torch.floor((torch.log2(shifted) - _LOG_LOWEST) * _LOG_STEPS).to(torch.int64)
        last = len(self.counts) - 1
        self.counts += torch.bincount(bins.clamp(0, last), minlength=last + 1)

    def points(self) -> tuple[Tensor, Tensor]:
        """Geometric centres of the non-empty bins (float64, ascending), and their counts."""
        filled = torch.nonzero(self.counts).flatten()
        centres = torch.exp2((filled.double() + 0.5) / _LOG_STEPS + _LOG_LOWEST)
        return centres, self.counts[filled].double()
