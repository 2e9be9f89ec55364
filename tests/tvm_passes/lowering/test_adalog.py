"""AdaLog codes: written by a function's table, read by products."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.tvm_passes.modules import Graph, apply_rules, assert_close, build, operators
from tests.tvm_passes.run_kernel import codes
from tvm_passes.errors import LoweringError
from tvm_passes.lowering.adalog import lower_quantize_log
from tvm_passes.lowering.attention import lower_matmul
from tvm_passes.lowering.products import lower_conv2d, lower_linear
from tvm_passes.lowering.views import sink_dequantize
from tvm_passes.ops.base import call
from tvm_passes.ops.qdq import DequantizeLogConfig, QuantizeLogConfig

GELU_SHIFT = 0.16997124254703522
# numerator and denominator of the base's exponent: AdaLog's, log2 and log-sqrt2
BASES = [(20, 37), (1, 1), (1, 2)]
RULES = (sink_dequantize, lower_conv2d, lower_linear, lower_matmul, lower_quantize_log)


def read(
    graph: Graph,
    x: relax.Expr,
    scale: Any = 0.8,
    shift: float = 0.0,
    base: tuple[int, int] = (20, 37),
) -> relax.Var:
    config = DequantizeLogConfig(*base, 5, shift)
    return graph.emit(call("dequantize_log", config, x, np.asarray(scale, np.float32)))


def linear(shift: float) -> tvm.IRModule:
    """AdaLog codes times weights, as behind GELU."""

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        w = graph.weights(np.random.default_rng(0).normal(size=(6, 9)) * 0.3)
        transposed = graph.emit(relax.op.permute_dims(w, [1, 0]))
        y = graph.emit(relax.op.matmul(read(graph, x, shift=shift), transposed))
        return graph.quantize(y, 0.01, 3, name="fc2")

    return build([((1, 4, 9), "uint8")], body)


@pytest.mark.parametrize("shift", [0.0, GELU_SHIFT])
def test_a_linear_layer_reads_fixed_point_values_and_folds_the_shift(shift: float) -> None:
    after = apply_rules(linear(shift), *RULES)
    assert operators(after) == ["lut", "linear"]
    x = codes("uint8", 1, 4, 9) & 31
    assert np.any(x == 31)  # the code of zero
    assert_close(linear(shift), after, x)


@pytest.mark.parametrize("axis", [-1, 1])
def test_the_greatest_value_leaves_room_for_long_sums(axis: int) -> None:
    w = np.random.default_rng(0).choice([-127, 127], (600, 2)).astype(np.int8)
    w[:, 0] = 127
    scales, zeros = ([0.01] * 2, [0] * 2) if axis >= 0 else (0.01, 0)

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        weights = graph.dequantize(relax.const(w), scales, zeros, axis)
        return graph.quantize(graph.emit(relax.op.matmul(read(graph, x), weights)), 1.0)

    before = build([((1, 3, 600), "uint8")], body)
    after = apply_rules(before, *RULES)
    assert_close(before, after, codes("uint8", 1, 3, 600) & 31)


@pytest.mark.parametrize("base", BASES)
def test_probabilities_in_adalog_codes_weigh_the_values(base: tuple[int, int]) -> None:
    def body(graph: Graph, x: relax.Var, v: relax.Var) -> relax.Expr:
        weights = read(graph, x, base=base)
        y = graph.emit(relax.op.matmul(weights, graph.dequantize(v, 0.1, -5)))
        return graph.quantize(y, 0.05, 2)

    before = build([((1, 2, 5, 9), "uint8"), ((1, 2, 9, 4), "int8")], body)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["lut", "matmul"]
    assert_close(before, after, codes("uint8", 1, 2, 5, 9) & 31, codes("int8", 1, 2, 9, 4))


def padded_convolution(shift: float) -> tvm.IRModule:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        w = graph.weights(np.random.default_rng(0).normal(size=(3, 2, 3, 3)))
        y = relax.op.nn.conv2d(read(graph, x, shift=shift), w, padding=(1, 1, 1, 1))
        return graph.quantize(graph.emit(y), 0.05, name="conv")

    return build([((1, 2, 5, 5), "uint8")], body)


def test_zero_padding_of_shifted_codes_is_refused() -> None:
    after = apply_rules(padded_convolution(0.0), *RULES)
    assert_close(padded_convolution(0.0), after, codes("uint8", 1, 2, 5, 5) & 31)
    with pytest.raises(LoweringError, match="conv: a padded convolution of shifted AdaLog"):
        apply_rules(padded_convolution(GELU_SHIFT), *RULES)


def write(dtype: str, scale: Any = 1.5, base: tuple[int, int] = (20, 37)) -> tvm.IRModule:
    """``quantize_log(gelu(x))``."""
    config = QuantizeLogConfig(*base, 6, GELU_SHIFT, "fc1.gelu")

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        real = graph.dequantize(x, 0.03 if dtype == "int8" else 1e-4, 9 if dtype == "int8" else 0)
        y = graph.pointwise("gelu", real)
        return graph.emit(call("quantize_log", config, y, np.asarray(scale, np.float32)))

    return build([((1, 500), dtype)], body)


@pytest.mark.parametrize("base", BASES)
def test_codes_of_an_8_bit_input_are_one_table(base: tuple[int, int]) -> None:
    before = write("int8", base=base)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["lut"]
    assert_close(before, after, codes("int8", 1, 500), share=0.01)


@pytest.mark.parametrize("base", BASES)
def test_codes_of_a_16_bit_input_are_segments_and_a_logarithm(base: tuple[int, int]) -> None:
    before = write("int16", base=base)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["pwl", "adalog_quantize"]
    x = np.arange(-5000, 32768, 75).astype(np.int16)[None, :500]  # right of GELU's minimum
    assert_close(before, after, x, share=0.02)


@pytest.mark.parametrize("make", [partial(write, "int8"), partial(write, "int16")])
def test_a_scale_per_channel_is_refused(make: Any) -> None:
    with pytest.raises(LoweringError, match="one constant scale"):
        apply_rules(make(scale=[1.0, 2.0]), *RULES)
