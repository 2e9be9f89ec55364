"""Twin uniform codes: a fine and a coarse range in one format, one bit says which.

Source: PTQ4ViT (ECCV 2022), section 3.2. The published softmax quantizer adds both branches, which
moves every value by the border; here each value takes one branch. The steps differ by a power of
two everywhere, as the paper intends, so that all values are integers on the fine grid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

GREATEST = 32767
"""Of the integers on the fine grid: products read them as int16."""

PUBLISHED_RATIO = 19
"""Largest logarithm of the ratio of both steps in the published code."""


@dataclass(frozen=True)
class Twin:
    """Format with two uniform ranges of `2^(bits - 1)` codes each.

    Attributes:
        bits: width of a code, stored in uint8.
        signed: the fine range is that of the negative values; otherwise that of the small ones.
        published: an unsigned value is the sum of what both ranges make of it, and the steps may
            differ by any power of two; for comparisons only, there is no integer form.
    """

    bits: int
    signed: bool
    published: bool = False

    @property
    def half(self) -> int:
        """Codes of a range."""
        return 1 << (self.bits - 1)

    @property
    def largest_ratio(self) -> int:
        """Largest logarithm of the ratio of both steps."""
        if self.published:
            return PUBLISHED_RATIO
        return (GREATEST // max(self.half - 1, 1)).bit_length() - 1

    def __str__(self) -> str:
        """Short name for summaries."""
        return f"twin, {self.bits} bits{', branches added' if self.published else ''}"


@dataclass(frozen=True)
class TwinQuantizer:
    """A twin format with its parameters.

    Attributes:
        format: see `Twin`.
        scale: step of the fine range, a value of float32.
        ratio: binary logarithm of the coarse step over the fine one.
    """

    format: Twin
    scale: float
    ratio: int

    @property
    def unit(self) -> float:
        """Step of the integers that products read for the codes."""
        return self.scale

    def quantize(self, x: Tensor) -> Tensor:
        """Codes of `x`, uint8; see `encode`."""
        return encode(x, torch.tensor(self.scale), self.ratio, self.format.bits, self.format.signed)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Values of codes, float32."""
        scale = torch.tensor(self.scale)
        return decode(codes, scale, self.ratio, self.format.bits, self.format.signed)

    def fake(self, x: Tensor) -> Tensor:
        """`dequantize(quantize(x))`, or what the published format makes of `x`."""
        if self.format.published:
            return fake(x, torch.tensor(self.scale), torch.tensor(self.ratio), self.format)
        return self.dequantize(self.quantize(x))


def encode(x: Tensor, scale: Tensor, ratio: int, bits: int, signed: bool) -> Tensor:
    """Twin codes, uint8.

    Unsigned: code `k < h = 2^(bits - 1)` is the value `k * scale` and `h + k` is
    `k * scale * 2^ratio`; the fine range is taken where its rounded code is below `h`. Signed: `k`
    is `k * scale * 2^ratio` and `h + k` is `-k * scale`, taken for negative values.
    """
    half = 1 << (bits - 1)
    fine = torch.floor(x / scale + 0.5)
    coarse = torch.floor(x / (scale * 2**ratio) + 0.5).clamp(0, half - 1)
    if signed:
        negative = half + (-fine).clamp(0, half - 1)
        return torch.where(x < 0, negative, coarse).to(torch.uint8)
    return torch.where(fine < half, fine.clamp(min=0), half + coarse).to(torch.uint8)


def decode(codes: Tensor, scale: Tensor, ratio: int, bits: int, signed: bool) -> Tensor:
    """Values of twin codes, float32."""
    half = 1 << (bits - 1)
    steps = codes.to(torch.int32)
    if signed:
        steps = torch.where(steps < half, steps << ratio, half - steps)
    else:
        steps = torch.where(steps < half, steps, (steps - half) << ratio)
    return steps.float() * scale


def fake(x: Tensor, scale: Tensor, ratio: Tensor, target: Twin) -> Tensor:
    """Encoded and decoded `x`; scale and ratio broadcast against it."""
    half, step = target.half, scale * torch.exp2(ratio.float())
    fine = torch.floor(x / scale + 0.5)
    if target.published and not target.signed:
        border = scale * (half - 1)
        large = torch.floor(torch.maximum(x, border) / step + 0.5).clamp(0, half - 1) * step
        return fine.clamp(0, half - 1) * scale + large
    coarse = torch.floor(x / step + 0.5).clamp(0, half - 1) * step
    if target.signed:
        return torch.where(x < 0, fine.clamp(1 - half, 0) * scale, coarse)
    return torch.where(fine < half, fine.clamp(min=0) * scale, coarse)
