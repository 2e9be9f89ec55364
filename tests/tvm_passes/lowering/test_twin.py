"""Twin codes: written behind a softmax or a function, read by products."""

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.tvm_passes.modules import (
    Graph,
    apply_rules,
    assert_close,
    build,
    configs,
    float_value,
    operators,
)
from tests.tvm_passes.run_kernel import codes
from tvm_passes.errors import LoweringError
from tvm_passes.interpret import interpret
from tvm_passes.lowering.attention import lower_matmul, lower_softmax
from tvm_passes.lowering.pointwise import lower_pointwise
from tvm_passes.lowering.products import lower_linear
from tvm_passes.lowering.twin import lower_twin
from tvm_passes.lowering.views import sink_dequantize
from tvm_passes.ops.base import call
from tvm_passes.ops.qdq import DequantizeTwinConfig, QuantizeTwinConfig

RULES = (
    sink_dequantize,
    lower_twin,
    sink_dequantize,
    lower_linear,
    lower_softmax,
    lower_matmul,
    lower_pointwise,
)


def stored(
    graph: Graph, x: relax.Expr, scale: Any, m: int, bits: int, signed: bool, read_bits: int = 0
) -> relax.Var:
    """A pair of conversions."""
    step = np.asarray(scale, np.float32)
    write = QuantizeTwinConfig(m, bits, signed, "twin")
    read = DequantizeTwinConfig(m, read_bits or bits, signed)
    inner = graph.emit(call("quantize_twin", write, x, step))
    return graph.emit(call("dequantize_twin", read, inner, step))


def mlp(
    dtype: str, function: str = "gelu", m: int = 6, depth: int = 40, **form: Any
) -> tvm.IRModule:
    """``twin(f(x)) @ w``, as between the layers of an MLP; the tokens are turned on the way."""
    scale, zero = (0.05, -20) if dtype == "int8" else (2e-4, 0)
    options = {"scale": 0.17 / 127, "m": m, "bits": 8, "signed": True} | form

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        y = graph.dequantize(x, scale, zero)
        if function != "identity":
            y = graph.pointwise(function, y)
        y = stored(graph, y, **options)
        y = graph.emit(relax.op.permute_dims(y, [0, 2, 1]))
        w = graph.weights(np.random.default_rng(0).normal(size=(6, depth)) * 0.3)
        y = graph.emit(relax.op.matmul(y, graph.emit(relax.op.permute_dims(w, [1, 0]))))
        return graph.quantize(y, 0.1, 3, name="fc2")

    return build([((1, depth, 5), dtype)], body)


@pytest.mark.parametrize("function", ["gelu", "silu"])
def test_a_function_of_16_bit_codes_is_evaluated_to_16_bits_first(function: str) -> None:
    before = mlp("int16", function)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["pwl", "twin", "permute_dims", "linear"]
    assert_close(before, after, codes("int16", 1, 40, 5), share=0.2)


def test_a_function_of_8_bit_codes_is_a_table_of_values() -> None:
    before = mlp("int8")
    after = apply_rules(before, *RULES)
    assert operators(after) == ["lut", "permute_dims", "linear"]
    assert_close(before, after, codes("int8", 1, 40, 5), share=0.05)


def test_16_bit_codes_change_their_format_without_a_function() -> None:
    before = mlp("int16", "identity")
    after = apply_rules(before, *RULES)
    assert "pwl" not in operators(after) and "twin" in operators(after)
    assert_close(before, after, codes("int16", 1, 40, 5), share=0.2)


def attention(m: int, bits: int, keys: int = 9) -> tvm.IRModule:
    """``twin(softmax(x)) @ v``; the coarse range ends at one, as PTQ4ViT has it."""

    def body(graph: Graph, x: relax.Var, v: relax.Var) -> relax.Expr:
        weights = graph.emit(relax.op.nn.softmax(graph.dequantize(x, 2e-4)))
        weights = stored(graph, weights, 2.0 ** (1 - bits - m), m, bits, signed=False)
        y = graph.emit(relax.op.matmul(weights, graph.dequantize(v, 0.1, -5)))
        return graph.quantize(y, 0.05, 2, name="attn.out")

    return build([((1, 2, 5, keys), "int16"), ((1, 2, keys, 4), "int8")], body)


@pytest.mark.parametrize(("m", "bits"), [(3, 8), (7, 8), (8, 8), (4, 6), (5, 4)])
def test_probabilities_weigh_the_values(m: int, bits: int) -> None:
    before = attention(m, bits)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["softmax", "twin", "matmul"]
    inputs = codes("int16", 1, 2, 5, 9), codes("int8", 1, 2, 9, 4)
    expected, got = float_value(before, *inputs), interpret(after, *inputs)
    assert np.mean(np.abs(got.astype(int) - expected) > 1) < 0.1  # a code next to a boundary
    assert len(np.unique(got)) > 4


def test_rows_of_probabilities_allow_long_sums() -> None:
    """128 codes of 256 fine steps are 2^15; a row of 600 may not be taken for 600 times that."""
    after = apply_rules(attention(8, 8, keys=600), *RULES)
    (config,) = configs(after, "twin")
    assert (config.qmin, config.qmax) == (0, 127 << 8)
    inputs = codes("int16", 1, 2, 5, 600), codes("int8", 1, 2, 600, 4)
    assert_close(attention(8, 8, keys=600), after, *inputs, codes=3)


def test_sums_that_may_overflow_are_refused() -> None:
    with pytest.raises(LoweringError, match="fc2: accumulators may reach"):
        apply_rules(mlp("int16", m=8, depth=6000), *RULES)


REFUSED = {
    "one constant scale": mlp("int16", scale=[0.1, 0.2]),
    "twin: twin codes are read in another format": mlp("int16", read_bits=7),
    r"twin: twin codes of 8 bits whose steps differ by 2\^9": mlp("int16", m=9),
}


@pytest.mark.parametrize("message", REFUSED)
def test_other_formats_are_refused(message: str) -> None:
    with pytest.raises(LoweringError, match=message):
        apply_rules(REFUSED[message], *RULES)


def test_twin_codes_of_a_product_are_refused() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        real = graph.dequantize(x, 0.1)
        return stored(graph, graph.emit(relax.op.matmul(real, real)), 0.1, 2, 8, False)

    with pytest.raises(LoweringError, match="twin: twin codes of neither a softmax nor"):
        apply_rules(build([((4, 4), "int8")], body), *RULES)
