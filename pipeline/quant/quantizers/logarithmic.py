"""Logarithmic codes whose base is a rational power of two: log2, log-sqrt2 and AdaLog.

Sources: AdaLog (ECCV 2024), section 3.2; log2 is FQ-ViT's (IJCAI 2022), log-sqrt2 RepQ-ViT's (ICCV
2023). The published quantizers add an exact zero to their `2^bits` codes; here the top code is the
zero, so that `bits` bits really hold every code. `published` formats are for comparisons only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

ADALOG = 37
"""`r` in log2(base) = q / r of AdaLog, as published."""

GELU_SHIFT = 0.16997124254703522
"""Minus the minimum of GELU: added to its output, nothing is negative."""


@dataclass(frozen=True)
class Logarithmic:
    """Format with values `scale * 2^(-code * q / r) - shift`.

    Attributes:
        bits: width of a code, stored in uint8.
        q: numerator of the base's exponent; None to search it.
        r: its denominator.
        shift: added before the logarithm.
        fixed_scale: value of code 0, where it needs no calibration.
        published: the zero is a code more than `bits` bits hold; there is no integer form.
    """

    bits: int
    q: int | None
    r: int = ADALOG
    shift: float = 0.0
    fixed_scale: float | None = None
    published: bool = False

    @property
    def zero_code(self) -> int:
        """The code of zero, behind all others."""
        return (1 << self.bits) - (0 if self.published else 1)

    def __str__(self) -> str:
        """Short name for summaries."""
        name = {(1, 1): "log2", (1, 2): "log-sqrt2"}.get((self.q or 0, self.r), "adalog")
        return f"{name}, {self.bits} bits{' and a zero' if self.published else ''}"


@dataclass(frozen=True)
class LogarithmicQuantizer:
    """A logarithmic format with its parameters.

    Attributes:
        format: see `Logarithmic`.
        scale: value of code 0, of float32.
        q: numerator of the base's exponent, at least 1.
    """

    format: Logarithmic
    scale: float
    q: int

    @property
    def unit(self) -> float:
        """Step of the fixed-point numbers that products read for the codes."""
        return self.scale * 2.0**-15

    def quantize(self, x: Tensor) -> Tensor:
        """Codes of `x`, uint8; see `encode`."""
        form = self.format
        return encode(x, torch.tensor(self.scale), self.q, form.r, form.bits, form.shift)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Values of codes, float32."""
        form = self.format
        return decode(codes, torch.tensor(self.scale), self.q, form.r, form.bits, form.shift)

    def fake(self, x: Tensor) -> Tensor:
        """`dequantize(quantize(x))`, or what the published format makes of `x`."""
        if self.format.published:
            return fake(x, torch.tensor(self.scale), torch.tensor(float(self.q)), self.format)
        return self.dequantize(self.quantize(x))


def encode(x: Tensor, scale: Tensor, q: int, r: int, bits: int, shift: float) -> Tensor:
    """Codes `round(-log2((x + shift) / scale) * r / q)` clamped to `[0, 2^bits - 2]`.

    Values more than half a (logarithmic) step below the smallest code become zero, code
    `2^bits - 1`.

    Args:
        x: float32, any shape.
        scale: float32 scalar, the value of code 0.
        q: numerator of the base's exponent, at least 1.
        r: its denominator.
        bits: 2 to 8.
        shift: added to `x` before the logarithm.

    Returns:
        uint8 codes with the shape of `x`.
    """
    zero = 2**bits - 1
    level = -torch.log2((x + shift) / scale) * (r / q)
    codes = torch.floor(level + 0.5).clamp(min=0)
    # A value of zero or less has no logarithm (inf or NaN): it is a zero as well.
    return torch.where(codes < zero, codes, zero).to(torch.uint8)


def decode(codes: Tensor, scale: Tensor, q: int, r: int, bits: int, shift: float) -> Tensor:
    """Values `scale * 2^(-codes * q / r) - shift`, float32; the top code gives `-shift`."""
    steps = torch.arange(2**bits, dtype=torch.float64, device=codes.device)
    table = torch.exp2(-steps * q / r)
    table[-1] = 0.0
    return (table * scale.double() - shift).float()[codes.long()]


def fake(x: Tensor, scale: Tensor, q: Tensor, target: Logarithmic) -> Tensor:
    """Encoded and decoded `x`; scale and q (any number) broadcast against it."""
    step = q / target.r
    level = torch.log2((x + target.shift).clamp(min=1e-30) / scale).neg_().div_(step)
    codes = level.add_(0.5).floor_().clamp(min=0)
    values = torch.exp2(-codes * step) * scale
    return torch.where(codes < target.zero_code, values, 0.0) - target.shift
