"""Attention whose weights have no format becomes one operator on tokens."""

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.tvm_passes.modules import Graph, apply_rules, build, float_value, operators
from tvm_passes.errors import LoweringError
from tvm_passes.interpret import interpret
from tvm_passes.lowering.long_attention import lower_long_attention
from tvm_passes.lowering.views import sink_dequantize

HEADS, QUERIES, KEYS, WIDTH = 2, 3, 1600, 5
SHAPES = [((1, QUERIES, HEADS * WIDTH), "int8"), ((1, KEYS, HEADS * WIDTH), "int8")]
OUT = 1e-3


def module(constant: bool = False, bias: bool = False) -> tvm.IRModule:
    """Two products and a softmax; the keys are the values."""
    query = np.random.default_rng(3).integers(-127, 128, (1, HEADS, QUERIES, WIDTH), np.int8)

    def body(graph: Graph, q: relax.Var, k: relax.Var) -> relax.Expr:
        def heads(x: relax.Expr, tokens: int, order: list[int]) -> relax.Var:
            split = graph.emit(relax.op.reshape(x, (1, tokens, HEADS, WIDTH)))
            return graph.emit(relax.op.permute_dims(split, order))

        left = heads(graph.dequantize(q, 0.01, 4), QUERIES, [0, 2, 1, 3])
        if constant:
            left = graph.dequantize(relax.const(query), 0.01)
        keys = graph.dequantize(k, 0.03, -7)
        scores = graph.emit(relax.op.matmul(left, heads(keys, KEYS, [0, 2, 3, 1])))
        if bias:
            scores = graph.emit(relax.op.add(scores, relax.const(np.ones((KEYS,), np.float32))))
        weights = graph.emit(relax.op.nn.softmax(scores, -1))
        mean = graph.emit(relax.op.matmul(weights, heads(keys, KEYS, [0, 2, 1, 3])))
        return graph.stored(mean, OUT, 0, dtype="int16", name="bridge")

    return build(SHAPES, body)


@pytest.mark.parametrize("spread", [8.0, 60.0])
@pytest.mark.parametrize("constant", [False, True])
def test_one_operator_follows_the_float_attention(constant: bool, spread: float) -> None:
    before = module(constant)
    after = apply_rules(before, sink_dequantize, lower_long_attention)
    assert operators(after).count("attention") == 1 and "matmul" not in operators(after)
    rng = np.random.default_rng(0)
    drawn = [np.clip(rng.normal(size=s) * spread, -128, 127).astype(np.int8) for s, _ in SHAPES]
    expected = float_value(before, *drawn)
    error = interpret(after, *drawn) - expected
    assert np.abs(error).max() < 0.01 * np.abs(expected).max() + OUT


def test_a_bias_is_refused() -> None:
    with pytest.raises(LoweringError, match="bridge: long attention"):
        apply_rules(module(bias=True), sink_dequantize, lower_long_attention)
