"""A zero-padded stem whose image has a mean: one exact bias per border class."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tvm import relax

from tests.tvm_passes.modules import (
    Graph,
    apply_rules,
    assert_close,
    build,
    configs,
    operators,
)
from tvm_passes.graph.layout import collapse_views
from tvm_passes.interpret import interpret
from tvm_passes.lowering.products import lower_conv2d
from tvm_passes.lowering.quantized import is_integer_call
from tvm_passes.lowering.views import sink_dequantize
from tvm_passes.ops.base import TensorSpec
from tvm_passes.rewrite import main_bindings

Array = NDArray[Any]
SCALE = 0.025
RULES = (sink_dequantize, lower_conv2d)


def stem(strides: tuple[int, int], size: tuple[int, int] = (9, 8)) -> tuple[Any, Any]:
    """A zero-padded stem on a normalised image, canonically and as the model defines it.

    Returns:
        The module, with the mean folded in a bias per pixel; and a function from the value of a
        constant image to the convolution of the normalised image.
    """
    mean, std = np.array([0.4, 0.5, 0.6]) * 255, np.array([0.2, 0.25, 0.3]) * 255
    w = np.random.default_rng(0).normal(size=(7, 3, 3, 3)) * 0.1
    attrs = {"strides": strides, "padding": (1, 1, 1, 1)}
    folded = w / std[None, :, None, None]

    def convolve(image: Array, weights: Array) -> Array:
        tensors = torch.from_numpy(image), torch.from_numpy(weights)
        return torch.nn.functional.conv2d(*tensors, None, strides, 1).numpy()

    bias = -convolve(np.broadcast_to(mean[None, :, None, None], (1, 3, *size)).copy(), folded)

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        real = graph.dequantize(x, 1.0)
        nchw = graph.emit(relax.op.permute_dims(real, [0, 3, 1, 2]))
        y = graph.emit(relax.op.nn.conv2d(nchw, graph.weights(folded), **attrs))
        total = graph.emit(relax.op.add(y, relax.const(bias.astype(np.float32))))
        return graph.quantize(total, SCALE, 3)

    def exact(pixel: int) -> Array:
        normalised = ((pixel - mean) / std)[None, :, None, None]
        return convolve(np.broadcast_to(normalised, (1, 3, *size)).copy(), w)

    return build([((1, *size, 3), "uint8")], body), exact


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("pixel", [0, 110, 255])
def test_a_padded_stem_on_a_constant_image(strides: tuple[int, int], pixel: int) -> None:
    """Borders see fewer taps of the mean: a bias per border class, exact in every corner."""
    before, exact = stem(strides)
    after = apply_rules(before, *RULES)
    image = np.full((1, 9, 8, 3), pixel, np.uint8)
    assert_close(before, after, image)
    real = (interpret(after, image).astype(np.float64) - 3) * SCALE
    assert np.abs(real - exact(pixel)).max() < 2 * SCALE  # a wrong class is off by far more


def test_a_padded_stem_has_nine_border_classes() -> None:
    after = apply_rules(stem((1, 1))[0], *RULES)
    (config,) = configs(after, "conv2d")
    for classes, extent in ((config.row_classes, 9), (config.column_classes, 8)):
        assert len(classes) == extent and len(set(classes)) == 3
        assert len(set(classes[1:-1])) == 1
    (expr,) = [b.value for b in main_bindings(after) if is_integer_call(b.value, "conv2d")]
    assert TensorSpec.of(expr.args[2]) == TensorSpec((9, 7), "int32")


def test_the_stem_reads_pixels_without_a_permutation() -> None:
    after = apply_rules(stem((2, 2))[0], *RULES, collapse_views)
    assert operators(after)[:2] == ["pad", "conv2d"]
