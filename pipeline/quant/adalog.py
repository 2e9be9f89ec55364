"""The AdaLog number format: logarithmic codes whose base is a rational power of two.

Source: AdaLog (ECCV 2024), section 3.2. The published quantizer adds an exact zero to its `2^bits`
codes; here the top code is the zero, so that `bits` bits really hold every code.
"""

import torch
from torch import Tensor

EXPONENT_DENOMINATOR = 37
"""`r` in log2(base) = q / r, as published."""

GELU_SHIFT = 0.16997124254703522
"""Minus the minimum of GELU: added to its output, nothing is negative."""


def encode(x: Tensor, scale: Tensor, q: int, bits: int, shift: float) -> Tensor:
    """Codes `round(-log2((x + shift) / scale) * 37 / q)` clamped to `[0, 2^bits - 2]`.

    Values more than half a (logarithmic) step below the smallest code become zero, code
    `2^bits - 1`.

    Args:
        x: float32, any shape.
        scale: float32 scalar, the value of code 0.
        q: numerator of the base's exponent, at least 1.
        bits: 2 to 8.
        shift: added to `x` before the logarithm.

    Returns:
        uint8 codes with the shape of `x`.
    """
    zero = 2**bits - 1
    level = -torch.log2((x + shift) / scale) * (EXPONENT_DENOMINATOR / q)
    codes = torch.floor(level + 0.5).clamp(min=0)
    # A value of zero or less has no logarithm (inf or NaN): it is a zero as well.
    return torch.where(codes < zero, codes, zero).to(torch.uint8)


def decode(codes: Tensor, scale: Tensor, q: int, bits: int, shift: float) -> Tensor:
    """Values `scale * 2^(-codes * q / 37) - shift`, float32; the top code gives `-shift`."""
    steps = torch.arange(2**bits, dtype=torch.float64, device=codes.device)
    table = torch.exp2(-steps * q / EXPONENT_DENOMINATOR)
    table[-1] = 0.0
    return (table * scale.double() - shift).float()[codes.long()]
