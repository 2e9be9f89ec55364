"""The two ends of the library: pixels in, integer logits out."""

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tests.tvm_passes.modules import Graph, build, operators, quantize_config, text
from tvm_passes.errors import LoweringError
from tvm_passes.lowering.io import logits_scale, return_codes, take_pixels
from tvm_passes.ops.base import TensorSpec
from tvm_passes.ops.qdq import DequantizeConfig

D, PIXELS = text(DequantizeConfig(-1)), text(quantize_config("uint8", "image"))


@I.ir_module
class Imported:
    @R.function
    def main(image: R.Tensor((1, 2, 2, 3), "float32")) -> R.Tensor((1, 12), "float32"):
        with R.dataflow():
            codes = R.pocketvit.quantize(
                image, R.const(1.0, "float32"), R.const(0, "int32"), R.str(PIXELS)
            )
            real = R.pocketvit.dequantize(
                codes, R.const(1.0, "float32"), R.const(0, "int32"), R.str(D)
            )
            flat = R.reshape(real, (1, 12))
            R.output(flat)
        return flat


@I.ir_module
class Pixels:
    @R.function
    def main(image: R.Tensor((1, 2, 2, 3), "uint8")) -> R.Tensor((1, 12), "float32"):
        with R.dataflow():
            real = R.pocketvit.dequantize(
                image, R.const(1.0, "float32"), R.const(0, "int32"), R.str(D)
            )
            flat = R.reshape(real, (1, 12))
            alias = flat
            R.output(alias)
        return alias


def test_the_image_becomes_its_codes() -> None:
    tvm.ir.assert_structural_equal(take_pixels(Imported), Pixels)


def test_an_image_in_another_format_is_refused() -> None:
    for scale, zero_point, dtype in [(0.5, 0, "uint8"), (1.0, -128, "int8"), (1.0, 1, "uint8")]:

        def body(
            graph: Graph, image: relax.Var, *form: Any, where: Any = (scale, zero_point, dtype)
        ) -> relax.Expr:
            return graph.quantize(image, *where, name="image")

        with pytest.raises(LoweringError, match="image: the image must be uint8, scale 1"):
            take_pixels(build([((1, 2, 2, 3), "float32")], body))


def logits(scale: Any, zero_point: Any, axis: int = -1) -> tvm.IRModule:
    return build([((1, 3), "int32")], lambda graph, x: graph.dequantize(x, scale, zero_point, axis))


def test_the_logits_are_returned_as_integers_with_their_scale() -> None:
    lowered = return_codes(logits(0.1, 0))
    assert operators(lowered) == []
    assert TensorSpec.of(lowered["main"].body.body) == TensorSpec((1, 3), "int32")
    assert logits_scale(lowered) == float(np.float32(0.1))  # to the last bit


def test_logits_without_one_scale_are_refused() -> None:
    with pytest.raises(LoweringError, match="output is not quantized"):
        return_codes(Pixels)
    with pytest.raises(LoweringError, match="zero point 0"):
        return_codes(logits(0.1, 4))
    with pytest.raises(LoweringError, match="one scale for the whole tensor"):
        return_codes(logits([0.1, 0.2, 0.3], [0, 0, 0], axis=1))
