"""Weight quantization: codes of few bits with one scale per output channel or per tensor."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_SMALLEST_SHARE = 2.0**-16


@dataclass(frozen=True)
class WeightFormat:
    """How weights are written.

    Attributes:
        bits: width of a code, 2 to 8.
        symmetric: zero point 0; with 8 bits it always is.
        per_channel: one scale per output channel instead of one per tensor.
    """

    bits: int
    symmetric: bool = True
    per_channel: bool = True

    @property
    def range(self) -> tuple[int, int]:
        """Least and greatest code, before a zero point.

        Asymmetric codes count from 0. Symmetric ones of 8 bits leave out the lowest, so that two
        products of operands in [-127, 127] fit int16; with fewer bits every code is used.
        """
        half = 1 << (self.bits - 1)
        if not self.symmetric and self.bits < 8:
            return 0, 2 * half - 1
        return (1 - half if self.bits == 8 else -half), half - 1

    @property
    def has_zero_point(self) -> bool:
        """Whether a row may have another zero point than 0."""
        return self.range[0] == 0


class WeightObserver(Protocol):
    """Chooses the clipping range of every output channel."""

    def bounds(self, rows: Tensor, target: WeightFormat) -> tuple[Tensor, Tensor]:
        """Least and greatest value to represent, `[O]` each, for weights `[O, K]`."""
        ...


@dataclass(frozen=True)
class MinMax:
    """The extremes: nothing is clipped."""

    def bounds(self, rows: Tensor, target: WeightFormat) -> tuple[Tensor, Tensor]:
        """See `WeightObserver`."""
        return rows.amin(dim=1).clamp(max=0), rows.amax(dim=1).clamp(min=0)


@dataclass(frozen=True)
class Mse:
    """The range with the least squared error, searched for all channels at once.

    Attributes:
        smallest: least fraction of the extremes that is tried.
        steps: number of fractions tried.
    """

    smallest: float = 0.4
    steps: int = 61

    def bounds(self, rows: Tensor, target: WeightFormat) -> tuple[Tensor, Tensor]:
        """See `WeightObserver`."""
        low, high = MinMax().bounds(rows, target)
        best_low, best_high = low, high
        least = torch.full_like(high, torch.inf)
        for fraction in torch.linspace(1.0, self.smallest, self.steps).tolist():
            scale, zero = parameters(low * fraction, high * fraction, target)
            error = (fake(rows, scale, zero, target) - rows).square_().sum(dim=1)
            better = error < least
            best_low = torch.where(better, low * fraction, best_low)
            best_high = torch.where(better, high * fraction, best_high)
            least = torch.where(better, error, least)
        return best_low, best_high


WEIGHT_OBSERVERS: dict[str, WeightObserver] = {"minmax": MinMax(), "mse": Mse()}


@dataclass(frozen=True)
class QuantizedWeight:
    """Codes and scales of one weight tensor.

    Attributes:
        codes: int8, shaped like the weight, the zero point already subtracted.
        scale: float32 `[O]`.
        zero_point: what was subtracted, float32 `[O]`; None where nobody needs it any more.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None = None

    def dequantized(self) -> Tensor:
        """The float32 values that the codes stand for."""
        shape = [-1] + [1] * (self.codes.dim() - 1)
        return self.codes.float() * self.scale.reshape(shape)


def parameters(low: Tensor, high: Tensor, target: WeightFormat) -> tuple[Tensor, Tensor]:
    """Scale and zero point, `[O]` each, with which the codes cover `[low, high]`."""
    qmin, qmax = target.range
    tiny = torch.finfo(torch.float32).tiny
    if target.has_zero_point:
        scale = ((high - low) / (qmax - qmin)).clamp(min=tiny)
        return scale, torch.floor(-low / scale + 0.5).clamp(qmin, qmax)
    scale = (torch.maximum(high, -low) / qmax).clamp(min=tiny)
    if target.bits < 8:  # the lowest code reaches further
        scale = torch.maximum(high / qmax, low / qmin).clamp(min=tiny)
    return scale, torch.zeros_like(scale)


def fake(rows: Tensor, scale: Tensor, zero: Tensor, target: WeightFormat) -> Tensor:
    """Quantized and dequantized rows `[..., K]`; scale and zero point `[...]`."""
    scale, zero = scale.unsqueeze(-1), zero.unsqueeze(-1)
    codes = torch.floor(rows / scale + 0.5).add_(zero).clamp(*target.range)
    return codes.sub_(zero).mul_(scale)


def quantize_weight(
    weight: Tensor, target: WeightFormat, observer: str, floor: Tensor | None = None
) -> QuantizedWeight:
    """Quantize a weight by an observer.

    Args:
        weight: float32 `[O, ...]`.
        target: the format.
        observer: a key of `WEIGHT_OBSERVERS`.
        floor: smallest admissible scales, float32 `[O]`; used to keep int32 biases in range.
    """
    return encode(weight, *scales_of(weight, target, observer), target, floor)


def scales_of(weight: Tensor, target: WeightFormat, observer: str) -> tuple[Tensor, Tensor]:
    """Scales and zero points `[O]` of a weight `[O, ...]` by an observer."""
    rows = weight.flatten(1)
    seen = rows if target.per_channel else rows.reshape(1, -1)
    scale, zero = parameters(*WEIGHT_OBSERVERS[observer].bounds(seen, target), target)
    return scale.expand(len(rows)), zero.expand(len(rows))


def usable(scale: Tensor, floor: Tensor | None = None) -> Tensor:
    """Scales `[O]` that the integer network can work with.

    Args:
        scale: as found.
        floor: smallest admissible scales.
    """
    # Dead channels (all but zero) take a scale in reach of the others, so that the requantizer's
    # shift stays in range; their codes become zero.
    scale = scale.clamp(min=max(float(scale.max()) * _SMALLEST_SHARE, _SMALLEST_SHARE**2))
    if floor is not None:
        scale = torch.maximum(scale, floor)
    return scale


def encode(
    weight: Tensor, scale: Tensor, zero: Tensor, target: WeightFormat, floor: Tensor | None = None
) -> QuantizedWeight:
    """Nearest codes of a weight `[O, ...]` at given scales and zero points `[O]`."""
    rows, scale = weight.flatten(1), usable(scale, floor)
    zeros = zero.unsqueeze(1)
    codes = (torch.floor(rows / scale.unsqueeze(1) + 0.5) + zeros).clamp(*target.range) - zeros
    return QuantizedWeight(codes.to(torch.int8).reshape(weight.shape), scale, zero)
