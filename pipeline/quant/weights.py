"""Weight quantization: symmetric codes with one scale per output channel."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_SMALLEST_SHARE = 2.0**-16


class WeightObserver(Protocol):
    """Chooses the clipping bound of every output channel."""

    def bound(self, rows: Tensor, qmax: int) -> Tensor:
        """Largest magnitude to represent, `[O]`, for weights `[O, K]` and codes up to `qmax`."""
        ...


@dataclass(frozen=True)
class MinMax:
    """The largest magnitude: nothing is clipped."""

    def bound(self, rows: Tensor, qmax: int) -> Tensor:
        """See `WeightObserver`."""
        return rows.abs().amax(dim=1)


@dataclass(frozen=True)
class Mse:
    """The bound with the least squared error, searched for all channels at once.

    Attributes:
        smallest: least fraction of the largest magnitude that is tried.
        steps: number of fractions tried.
    """

    smallest: float = 0.4
    steps: int = 61

    def bound(self, rows: Tensor, qmax: int) -> Tensor:
        """See `WeightObserver`."""
        largest = rows.abs().amax(dim=1)
        best = largest
        least = torch.full_like(largest, torch.inf)
        for fraction in torch.linspace(1.0, self.smallest, self.steps).tolist():
            bound = largest * fraction
            scale = (bound / qmax).clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1)
            codes = torch.floor(rows / scale + 0.5).clamp_(-qmax, qmax)
            error = (codes * scale - rows).square_().sum(dim=1)
            better = error < least
            best, least = torch.where(better, bound, best), torch.where(better, error, least)
        return best


WEIGHT_OBSERVERS: dict[str, WeightObserver] = {"minmax": MinMax(), "mse": Mse()}


@dataclass(frozen=True)
class QuantizedWeight:
    """Codes and scales of one weight tensor.

    Attributes:
        codes: int8, shaped like the weight, in `[1 - 2^(bits-1), 2^(bits-1) - 1]`.
        scale: float32 `[O]`.
    """

    codes: Tensor
    scale: Tensor

    def dequantized(self) -> Tensor:
        """The float32 values that the codes stand for."""
        shape = [-1] + [1] * (self.codes.dim() - 1)
        return self.codes.float() * self.scale.reshape(shape)


def quantize_weight(
    weight: Tensor, bits: int, observer: str, floor: Tensor | None = None
) -> QuantizedWeight:
    """Quantize a weight per output channel (axis 0).

    Args:
        weight: float32 `[O, ...]`.
        bits: width of a code, 2 to 8.
        observer: a key of `WEIGHT_OBSERVERS`.
        floor: smallest admissible scales, float32 `[O]`; used to keep int32 biases in range.
    """
    qmax = 2 ** (bits - 1) - 1
    rows = weight.flatten(1)
    scale = WEIGHT_OBSERVERS[observer].bound(rows, qmax) / qmax
    # Dead channels (all but zero) take a scale in reach of the others, so that the requantizer's
    # shift stays in range; their codes become zero.
    scale = scale.clamp(min=max(float(scale.max()) * _SMALLEST_SHARE, _SMALLEST_SHARE**2))
    if floor is not None:
        scale = torch.maximum(scale, floor)
    codes = torch.floor(rows / scale.unsqueeze(1) + 0.5).clamp(-qmax, qmax)
    return QuantizedWeight(codes.to(torch.int8).reshape(weight.shape), scale)
