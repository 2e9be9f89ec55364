"""Products of two computed tensors, and softmax on their accumulators."""

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tests.tvm_passes.modules import (
    Graph,
    apply_rules,
    assert_close,
    assert_rewrites,
    build,
    configs,
    float_value,
    operators,
    quantize_config,
    text,
)
from tests.tvm_passes.run_kernel import codes
from tvm_passes.errors import LoweringError
from tvm_passes.interpret import interpret
from tvm_passes.lowering.attention import lower_matmul, lower_softmax
from tvm_passes.ops.base import call
from tvm_passes.ops.matmul import MatmulConfig
from tvm_passes.ops.qdq import DequantizeConfig, DequantizeLogConfig, QuantizeLogConfig
from tvm_passes.ops.softmax import softmax_config

RULES = (lower_softmax, lower_matmul)
D, Q16 = text(DequantizeConfig(-1)), text(quantize_config("int16", "attn"))
PRODUCT = text(MatmulConfig(False, 3, 0, False, 0, 2**29, 0, -32767, 32767, "int16"))
RAW = text(MatmulConfig(False, 3, 0, True, 0, 0, 0, 0, 0, "int32"))
WRITE, READ = QuantizeLogConfig(20, 37, 6, 0.0, "attn"), DequantizeLogConfig(20, 37, 6, 0.0)
ONE = np.array(1.0, np.float32)
SOFTMAX = text(softmax_config(0.125, "int16"))


@I.ir_module
class Before:
    @R.function
    def main(a: R.Tensor((2, 3, 4), "int8"), b: R.Tensor((2, 4, 5), "int8")):
        with R.dataflow():
            x = R.pocketvit.dequantize(a, R.const(0.5, "float32"), R.const(3, "int32"), R.str(D))
            y = R.pocketvit.dequantize(b, R.const(0.25, "float32"), R.const(0, "int32"), R.str(D))
            stored = R.pocketvit.quantize(
                R.matmul(x, y), R.const(0.5, "float32"), R.const(0, "int32"), R.str(Q16)
            )
            weights = R.pocketvit.quantize(
                R.nn.softmax(R.matmul(x, y), axis=-1),
                R.const(0.000030517578125, "float32"),
                R.const(0, "int32"),
                R.str(Q16),
            )
            result = (stored, weights)
            R.output(result)
        return result


@I.ir_module
class After:
    @R.function
    def main(a: R.Tensor((2, 3, 4), "int8"), b: R.Tensor((2, 4, 5), "int8")):
        with R.dataflow():
            stored = R.pocketvit.matmul(a, b, R.str(PRODUCT))
            logits = R.pocketvit.matmul(a, b, R.str(RAW))
            weights = R.pocketvit.softmax(logits, R.str(SOFTMAX))
            result = (stored, weights)
            R.output(result)
        return result


def test_products_and_softmax_become_integer_operators() -> None:
    assert_rewrites(Before, After, *RULES)


def attention(
    constants: tuple[Any, ...] = (),
    out: tuple[Any, ...] = (2.0**-15, 0, "int16", "attn.softmax"),
    axis: int = -1,
    scale: float = 0.03,
) -> tvm.IRModule:
    """``softmax(q @ k + constants)`` quantized; q, k int8 of [1, 2, 5, 8] and [1, 2, 8, 7]."""

    def body(graph: Graph, q: relax.Var, k: relax.Var) -> relax.Expr:
        y = graph.emit(relax.op.matmul(graph.dequantize(q, scale, 3), graph.dequantize(k, 0.02)))
        for constant in constants:
            y = graph.emit(relax.op.add(y, relax.const(np.asarray(constant, np.float32))))
        return graph.quantize(graph.emit(relax.op.nn.softmax(y, axis)), *out)

    return build([((1, 2, 5, 8), "int8"), ((1, 2, 8, 7), "int8")], body)


def queries() -> list[Any]:
    return [codes("int8", 1, 2, 5, 8), codes("int8", 1, 2, 8, 7)]


FORMATS: list[tuple[Any, ...]] = [
    *((2.0**-15, 0, "int16"), (2.0**-8, -128, "int8"), (1 / 255, -128, "int8")),
    (1 / 15, -8, "int8", "p", -1, (-8, 7)),
    (1 / 15, 0, "int8", "p", -1, (0, 15)),
    (1 / 40, 0, "int8", "p", -1, (0, 7)),  # what is above 7 / 40 is clipped
    (0.001, 0, "int16"),
]


@pytest.mark.parametrize("out", FORMATS)
def test_softmax_reads_the_accumulators(out: tuple[Any, ...]) -> None:
    after = apply_rules(attention(out=out), *RULES)
    assert operators(after) == ["matmul", "softmax"]
    assert [config.raw for config in configs(after, "matmul")] == [True]
    assert_close(attention(out=out), after, *queries())


@pytest.mark.parametrize("shape", [(7,), (2, 5, 7), (1, 1, 5, 7)])
def test_a_position_bias_joins_the_logits(shape: tuple[int, ...]) -> None:
    bias = np.random.default_rng(0).normal(size=shape)
    mask = np.where(np.arange(7) < 5, 0.0, -np.inf)
    before = attention((bias, mask))
    after = apply_rules(before, *RULES)
    assert operators(after) == ["matmul", "softmax"]
    got = interpret(after, *queries())
    assert np.all(got[..., 5:] == 0)
    # the bias is rounded to a step of the logits, 6e-4
    assert np.abs(float_value(before, *queries()).astype(int) - got).max() <= 12


def test_softmax_reads_stored_codes() -> None:
    """As behind a talking-head convolution, whose output is int16."""

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        weights = graph.emit(relax.op.nn.softmax(graph.dequantize(x, 2e-4), 2))
        return graph.quantize(weights, 2.0**-15, 0, "int16")

    before = build([((1, 3, 6), "int16")], body)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["softmax"]
    assert_close(before, after, codes("int16", 1, 3, 6))


@pytest.mark.parametrize("scale", [1.0, 0.8])
@pytest.mark.parametrize(("base", "bits"), [((20, 37), 3), ((20, 37), 8), ((1, 1), 4), ((1, 2), 4)])
def test_adalog_codes_of_a_softmax(scale: float, base: tuple[int, int], bits: int) -> None:
    config = QuantizeLogConfig(*base, bits, 0.0, "attn.softmax")

    def body(graph: Graph, q: relax.Var, k: relax.Var) -> relax.Expr:
        y = graph.emit(relax.op.matmul(graph.dequantize(q, 0.03, 3), graph.dequantize(k, 0.02)))
        weights = graph.emit(relax.op.nn.softmax(y, -1))
        return graph.emit(call("quantize_log", config, weights, np.array(scale, np.float32)))

    before = build([((1, 2, 5, 8), "int8"), ((1, 2, 8, 7), "int8")], body)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["matmul", "softmax"]
    assert_close(before, after, *queries(), share=0.03)


def test_softmax_over_another_axis_is_refused() -> None:
    with pytest.raises(LoweringError, match="attn.softmax: softmax over an axis that is not"):
        apply_rules(attention(axis=2), *RULES)
    assert operators(apply_rules(attention(axis=3), *RULES)) == ["matmul", "softmax"]


@pytest.mark.parametrize(
    "out",
    [
        *((2.0**-16, 0, "int16"), (1.5, 0, "int8"), (1.0, 0, "uint8")),
        (0.1, 0, "int8", "p", -1, (1, 7)),
        (0.1, 8, "int8", "p", -1, (-8, 7)),
    ],
)
def test_other_formats_of_probabilities_are_refused(out: tuple[Any, ...]) -> None:
    with pytest.raises(LoweringError, match=r"^(p|y): softmax to"):
        apply_rules(attention(out=out), *RULES)


def test_softmax_of_a_float_operator_is_refused() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        silu = graph.pointwise("silu", graph.dequantize(x, 1.0))
        return graph.quantize(graph.emit(relax.op.nn.softmax(silu)), 2.0**-15, 0, "int16", "attn")

    with pytest.raises(LoweringError, match="attn: softmax of something that is no product"):
        apply_rules(build([((1, 4), "int8")], body), *RULES)


def test_shifted_adalog_codes_of_a_softmax_are_refused() -> None:
    config = QuantizeLogConfig(20, 37, 4, 0.1, "attn")

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        weights = graph.emit(relax.op.nn.softmax(graph.dequantize(x, 0.1)))
        return graph.emit(call("quantize_log", config, weights, np.array(1, np.float32)))

    with pytest.raises(LoweringError, match="attn: shifted AdaLog"):
        apply_rules(build([((1, 4), "int8")], body), *RULES)


def product(a: str, b: str, depth: int, probabilities: bool = False) -> tvm.IRModule:
    """``a @ b`` to int8; a possibly the int16 output of a softmax."""

    def body(graph: Graph, x: relax.Var, y: relax.Var) -> relax.Expr:
        left = graph.dequantize(x, 1e-4 if a == "int16" else 0.02, 0)
        if probabilities:
            weights = graph.emit(relax.op.nn.softmax(left))
            left = graph.stored(weights, 2.0**-15, 0, "int16")
        right = graph.dequantize(y, 0.05, -8 if b == "int8" else 0)
        out_scale = 0.1 if probabilities else 0.4
        product = graph.emit(relax.op.matmul(left, right))
        return graph.quantize(product, out_scale, 2, name="attn.out")

    return build([((1, 3, depth), a), ((1, depth, 4), b)], body)


@pytest.mark.parametrize("a", ["int8", "int16"])
def test_products_are_requantized(a: str) -> None:
    before = product(a, "int8", 9)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["matmul"]
    assert_close(before, after, codes(a, 1, 3, 9), codes("int8", 1, 9, 4))


def test_rows_of_probabilities_allow_longer_sums() -> None:
    """int16 codes of a softmax add up to 2^15 per row, whatever its length."""
    longest = 2**31 // (32768 * 135)
    with pytest.raises(LoweringError, match=r"attn.out: sums over 600 products .* 2\^31.3"):
        apply_rules(product("int16", "int8", 600), *RULES)
    assert operators(apply_rules(product("int16", "int8", longest), *RULES)) == ["matmul"]
    after = apply_rules(product("int16", "int8", 600, probabilities=True), *RULES)
    assert operators(after) == ["softmax", "matmul"]
    x = codes("int16", 1, 3, 600)
    v = codes("int8", 1, 600, 4)
    assert_close(product("int16", "int8", 600, probabilities=True), after, x, v)


@pytest.mark.parametrize("form", [(0.001, 0, "int16"), (1 / 255, -128, "int8")])
def test_rows_of_uniform_probabilities_add_up_to_one(form: tuple[Any, ...]) -> None:
    """Whatever the greatest code, and however long the row."""

    def body(graph: Graph, x: relax.Var, v: relax.Var) -> relax.Expr:
        weights = graph.emit(relax.op.nn.softmax(graph.dequantize(x, 0.01)))
        real = graph.stored(weights, *form)
        y = graph.emit(relax.op.matmul(real, graph.dequantize(v, 0.1, -8)))
        return graph.quantize(y, 0.03, name="attn.out")

    before = build([((1, 3, 600), "int8"), ((1, 600, 4), "int8")], body)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["softmax", "matmul"]
    assert_close(before, after, codes("int8", 1, 3, 600), codes("int8", 1, 600, 4))


def test_rows_of_adalog_probabilities_allow_longer_sums() -> None:
    """Behind a softmax; AdaLog codes of anything else may all be greatest."""

    def module(softmax: bool) -> tvm.IRModule:
        def body(graph: Graph, x: relax.Var, v: relax.Var) -> relax.Expr:
            weights: relax.Expr = x
            if softmax:
                y = graph.emit(relax.op.nn.softmax(graph.dequantize(x, 0.03)))
                weights = graph.emit(call("quantize_log", WRITE, y, ONE))
            real = graph.emit(call("dequantize_log", READ, weights, ONE))
            y = graph.emit(relax.op.matmul(real, graph.dequantize(v, 0.1, -8)))
            return graph.quantize(y, 0.03, name="attn.out")

        return build([((1, 3, 600), "int8" if softmax else "uint8"), ((1, 600, 4), "int8")], body)

    with pytest.raises(LoweringError, match="attn.out: sums over 600 products"):
        apply_rules(module(False), *RULES)
    after = apply_rules(module(True), *RULES)
    assert operators(after) == ["softmax", "lut", "matmul"]
    assert_close(module(True), after, codes("int8", 1, 3, 600), codes("int8", 1, 600, 4), codes=2)


def test_a_second_operand_of_16_bits_is_refused() -> None:
    with pytest.raises(LoweringError, match="attn.out: the second operand .* must be int8"):
        apply_rules(product("int8", "int16", 9), *RULES)


def test_an_operand_with_a_scale_per_channel_is_refused() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        left = graph.dequantize(x, [0.1, 0.2], [0, 0], axis=1)
        right = graph.dequantize(x, 0.1)
        return graph.quantize(graph.emit(relax.op.matmul(left, right)), 1.0, name="attn")

    with pytest.raises(LoweringError, match="attn: an operand needs one scale"):
        apply_rules(build([((2, 2), "int8")], body), *RULES)
