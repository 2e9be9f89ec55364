"""Uniform codes: equal steps, one scale for the tensor or one per index of an axis."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Uniform:
    """Uniform format: `value = (code - zero_point) * scale`.

    Attributes:
        dtype: storage, a key of `pipeline.quant.ops.DTYPES`.
        qmin: smallest code.
        qmax: largest code.
        symmetric: zero point 0, so that no product needs a correction at run time.
        fixed: scale and zero point, where the format itself fixes them.
    """

    dtype: str
    qmin: int
    qmax: int
    symmetric: bool = False
    fixed: tuple[float, int] | None = None

    @property
    def bits(self) -> int:
        """Bits that hold all codes."""
        return (self.qmax - self.qmin).bit_length()

    def __str__(self) -> str:
        """Short name for summaries."""
        return f"{self.dtype}, {self.bits} bits" if self.bits % 8 else self.dtype


@dataclass(frozen=True)
class UniformQuantizer:
    """A uniform format with its parameters.

    Attributes:
        format: see `Uniform`.
        scale: values of float32: one, or one per index of `axis`.
        zero_point: the codes of 0.0, as many.
        axis: axis of the tensor along which the scale varies; -1 for none.
    """

    format: Uniform
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int = -1

    @property
    def is_per_tensor(self) -> bool:
        """Whether one scale serves the whole tensor."""
        return self.axis < 0

    def stored(self) -> "UniformQuantizer":
        """The same values with zero point 0, where the codes then fit 8 bits.

        Codes of up to 7 bits always do: in storage an asymmetric format of few bits is a symmetric
        one with another range, and costs no correction.
        """
        form, zero = self.format, self.zero_point[0]
        low, high = form.qmin - zero, form.qmax - zero
        if form.dtype != "int8" or len(set(self.zero_point)) > 1 or low < -128 or high > 127:
            return self
        shifted = Uniform("int8", low, high, form.symmetric)
        return UniformQuantizer(shifted, self.scale, (0,) * len(self.zero_point), self.axis)

    def quantize(self, x: Tensor) -> Tensor:
        """Codes of `x`, int32."""
        scale, zero = self._parameters(x)
        codes = torch.floor(x / scale + 0.5) + zero
        return codes.clamp(self.format.qmin, self.format.qmax).to(torch.int32)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Values of codes, float32."""
        scale, zero = self._parameters(codes)
        return (codes - zero).float() * scale

    def fake(self, x: Tensor) -> Tensor:
        """`dequantize(quantize(x))`."""
        return fake(x, *self._parameters(x), self.format)

    def _parameters(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = [1] * x.dim()
        if not self.is_per_tensor:
            shape[self.axis] = -1
        else:
            shape = []
        scale = torch.tensor(self.scale, dtype=torch.float32, device=x.device).reshape(shape)
        return scale, torch.tensor(self.zero_point, device=x.device).reshape(shape)


def fake(x: Tensor, scale: Tensor, zero_point: Tensor, target: Uniform) -> Tensor:
    """Quantized and dequantized `x`; scale and zero point broadcast against it."""
    codes = (torch.floor(x / scale + 0.5) + zero_point).clamp(target.qmin, target.qmax)
    return (codes - zero_point) * scale
