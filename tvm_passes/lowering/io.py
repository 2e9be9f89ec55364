"""The library's ends: uint8 pixels come in, int32 logits go out."""

import tvm
from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.lowering.quantized import is_integer_call, output_format, quantized
from tvm_passes.ops.base import TensorSpec
from tvm_passes.rewrite import MAIN, Scope, rewrite_main

LOGITS_SCALE = "pocketvit.logits_scale"  # function attribute, a decimal string


def take_pixels(mod: tvm.IRModule) -> tvm.IRModule:
    """Replace the float image by the uint8 codes that its quantizer makes of it.

    Raises:
        LoweringError: its quantizer is not the identity on 0..255.
    """
    (image,) = mod[MAIN].params
    pixels = relax.Var("image", relax.TensorType(TensorSpec.of(image).shape, "uint8"))

    def rule(scope: Scope, call: relax.Call) -> relax.Expr | None:
        del scope
        if not is_integer_call(call, "quantize") or not call.args[0].same_as(pixels):
            return None
        target = output_format(call)
        if (target.scale, target.zero_point, target.dtype) != (1.0, 0, "uint8"):
            raise LoweringError(f"{target.name}: the image must be uint8, scale 1, zero point 0")
        return pixels

    return rewrite_main(mod, rule, [pixels])


def return_codes(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the integer logits; their scale becomes the attribute ``LOGITS_SCALE``.

    Raises:
        LoweringError: the output is no dequantized tensor with one scale and zero point 0.
    """
    scale = 0.0

    def finish(scope: Scope, result: relax.Expr) -> relax.Expr:
        nonlocal scale
        logits = quantized(scope, result)
        if logits is None:
            raise LoweringError("the network's output is not quantized")
        scale, zero_point = logits.scalar("output")
        if zero_point:
            raise LoweringError("the network's output must have zero point 0")
        return logits.codes

    rewritten = rewrite_main(mod, lambda scope, call: None, finish=finish)
    rewritten[MAIN] = rewritten[MAIN].with_attr(LOGITS_SCALE, repr(scale))
    return rewritten


def logits_scale(mod: tvm.IRModule) -> float:
    """The scale of the integer logits of a lowered module."""
    return float(mod[MAIN].attrs[LOGITS_SCALE])
