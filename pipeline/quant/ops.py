"""The quantization operators of the simulated graph, in the torch namespace `pocketvit`.

They survive `torch.export` and mark for the compiler where integers begin and end. Rounding is
`floor(x + 1/2)` everywhere, the rule of the integer requantizer, and never half-to-even.
"""

import json

import torch
from torch import Tensor

from pipeline.quant import quantizers
from pipeline.quant.quantizers import logarithmic, twin

DTYPES = {
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "int32": torch.int32,
}


def _along(axis: int, parameter: Tensor, rank: int) -> Tensor:
    """Shape a per-axis parameter `[n]` so that it broadcasts against a tensor of `rank` axes."""
    if axis < 0:
        return parameter
    shape = [1] * rank
    shape[axis] = -1
    return parameter.reshape(shape)


@torch.library.custom_op("pocketvit::quantize", mutates_args=())
def quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    qmin: int,
    qmax: int,
    axis: int,
    dtype: str,
    name: str,
) -> Tensor:
    """Uniform codes `clamp(floor(x / scale + 1/2) + zero_point, qmin, qmax)`.

    Args:
        x: float32, any shape.
        scale: float32, a scalar, or `[n]` along `axis`.
        zero_point: int32, shaped like `scale`.
        qmin: smallest code.
        qmax: largest code.
        axis: axis of a per-axis scale; -1 for one scale per tensor.
        dtype: storage of the codes, a key of `DTYPES`.
        name: module path and role, for diagnostics only.

    Returns:
        Codes with the shape of `x`.
    """
    # int32 codes (the logits) can exceed the 24 bits that float32 holds exactly.
    work = x.double() if dtype == "int32" else x
    codes = (work / _along(axis, scale, x.dim())).add_(0.5).floor_()
    if axis >= 0:
        codes.add_(_along(axis, zero_point, x.dim()))
    elif zero := int(zero_point):
        codes.add_(zero)
    return codes.clamp_(qmin, qmax).to(DTYPES[dtype])


@quantize.register_fake
def _(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    qmin: int,
    qmax: int,
    axis: int,
    dtype: str,
    name: str,
) -> Tensor:
    return torch.empty_like(x, dtype=DTYPES[dtype])


@torch.library.custom_op("pocketvit::dequantize", mutates_args=())
def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    """Float32 values `(codes - zero_point) * scale`, arguments as in `quantize`."""
    if codes.dtype == torch.int32:
        values = (codes - _along(axis, zero_point, codes.dim())).to(torch.float32)
    else:  # float32 holds these codes exactly
        values = codes.to(torch.float32)
        if axis >= 0:
            values.sub_(_along(axis, zero_point, codes.dim()))
        elif zero := int(zero_point):
            values.sub_(zero)
    return values.mul_(_along(axis, scale, codes.dim()))


@dequantize.register_fake
def _(codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    return torch.empty_like(codes, dtype=torch.float32)


@torch.library.custom_op("pocketvit::adalog_quantize", mutates_args=())
def adalog_quantize(
    x: Tensor, scale: Tensor, q: int, r: int, bits: int, shift: float, name: str
) -> Tensor:
    """Logarithmic codes (uint8) of `x`, see `pipeline.quant.quantizers.logarithmic.encode`."""
    return logarithmic.encode(x, scale, q, r, bits, shift)


@adalog_quantize.register_fake
def _(x: Tensor, scale: Tensor, q: int, r: int, bits: int, shift: float, name: str) -> Tensor:
    return torch.empty_like(x, dtype=torch.uint8)


@torch.library.custom_op("pocketvit::adalog_dequantize", mutates_args=())
def adalog_dequantize(
    codes: Tensor, scale: Tensor, q: int, r: int, bits: int, shift: float
) -> Tensor:
    """Float32 values of logarithmic codes, see `pipeline.quant.quantizers.logarithmic.decode`."""
    return logarithmic.decode(codes, scale, q, r, bits, shift)


@adalog_dequantize.register_fake
def _(codes: Tensor, scale: Tensor, q: int, r: int, bits: int, shift: float) -> Tensor:
    return torch.empty_like(codes, dtype=torch.float32)


@torch.library.custom_op("pocketvit::twin_quantize", mutates_args=())
def twin_quantize(
    x: Tensor, scale: Tensor, ratio: int, bits: int, signed: bool, name: str
) -> Tensor:
    """Twin codes (uint8) of `x`, see `pipeline.quant.quantizers.twin.encode`."""
    return twin.encode(x, scale, ratio, bits, signed)


@twin_quantize.register_fake
def _(x: Tensor, scale: Tensor, ratio: int, bits: int, signed: bool, name: str) -> Tensor:
    return torch.empty_like(x, dtype=torch.uint8)


@torch.library.custom_op("pocketvit::twin_dequantize", mutates_args=())
def twin_dequantize(codes: Tensor, scale: Tensor, ratio: int, bits: int, signed: bool) -> Tensor:
    """Float32 values of twin codes, see `pipeline.quant.quantizers.twin.decode`."""
    return twin.decode(codes, scale, ratio, bits, signed)


@twin_dequantize.register_fake
def _(codes: Tensor, scale: Tensor, ratio: int, bits: int, signed: bool) -> Tensor:
    return torch.empty_like(codes, dtype=torch.float32)


@torch.library.custom_op("pocketvit::published", mutates_args=())
def published(x: Tensor, quantizer: str, name: str) -> Tensor:
    """What a format without integer form makes of `x`; never lowered.

    Args:
        x: float32, any shape.
        quantizer: as JSON, see `pipeline.quant.quantizers.to_json`.
        name: module path and role, for diagnostics only.
    """
    return quantizers.from_json(json.loads(quantizer)).fake(x)


@published.register_fake
def _(x: Tensor, quantizer: str, name: str) -> Tensor:
    return torch.empty_like(x)
