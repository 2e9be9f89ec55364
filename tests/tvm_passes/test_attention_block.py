"""An attention block whose heads have scales of their own, from pixels to logits."""

from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm import relax

from tests.tvm_passes.heads import Between, Heads, adalog, uniform
from tests.tvm_passes.modules import Graph, build, float_value, operators
from tests.tvm_passes.run_kernel import EVERY_ISA, calls_of, check_all
from tvm_passes.interpret import interpret
from tvm_passes.lowering.io import logits_scale
from tvm_passes.pipeline import lower

Array = NDArray[Any]
FINE, COARSE = (0.006, 0.024, 0.096), (0.32, 0.08, 0.02)  # 16 times from head to head
INPUTS, CLASSES = 24, 5


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def block(tokens: int, width: int, between: Between | None = None) -> tvm.IRModule:
    """Linears for q, k and v, attention with a bias of relative positions, and a last linear."""
    bias = normal(3, tokens, tokens) * 2
    heads = Heads(FINE, (0.02, 0.03, 0.02), COARSE, width, tokens, 0.1, bias=bias)

    def body(graph: Graph, image: relax.Var) -> relax.Expr:
        def linear(x: relax.Expr, rows: Array) -> relax.Var:
            w = graph.emit(relax.op.permute_dims(graph.weights(rows), [1, 0]))
            return graph.emit(relax.op.matmul(x, w))

        def projected(scales: Any) -> relax.Var:
            """With rows so large that the codes of every head fill their range."""
            each = heads.channels(scales)
            rows = normal(3 * width, INPUTS) * each[:, None] / 8
            y = linear(x, rows - rows.mean(1, keepdims=True))
            return graph.stored(y, each, np.zeros(len(each)), name="q", axis=2)

        pixels = graph.stored(image, 1.0, 0, "uint8", name="image")
        x = graph.emit(relax.op.reshape(pixels, (1, tokens, INPUTS)))
        parts = [projected(scales) for scales in (heads.q, heads.k, heads.v)]
        y = graph.dequantize(heads.attend(graph, parts, between), heads.out, 3)
        return graph.stored(linear(y, normal(CLASSES, 3 * width)), 1e-4, 0, "int32", name="head")

    return build([((1, tokens, 8, 3), "float32")], body)


CASES: dict[str, tuple[Any, ...]] = {
    "softmax": (17, 8),
    "long": (197, 64),
    "adalog": (49, 24, adalog(12, 6)),
    "8 bits": (49, 24, uniform(1 / 255, -128, (-128, 127))),
    "4 bits": (49, 24, uniform(1 / 15, 0, (0, 15))),
}
# operator, and least signal-to-noise ratio in dB: where probabilities are stored in few codes, one
# that is off by one next to a boundary moves its weight by a whole step
EXPECTED = {
    "softmax": ("attention", 55),
    "long": ("attention", 55),
    "adalog": ("adalog_attention", 40),
    "8 bits": ("uniform_attention", 48),
    "4 bits": ("uniform_attention", 30),
}


def pixels(tokens: int) -> Array:
    return np.random.default_rng(tokens).integers(0, 256, (1, tokens, 8, 3), np.uint8)


@pytest.mark.parametrize("name", CASES)
def test_integers_follow_the_graph_in_double_precision(name: str) -> None:
    operator, decibels = EXPECTED[name]
    before = block(*CASES[name])
    after = lower(before)
    assert [op for op in operators(after) if op != "reshape"] == [
        *["linear"] * 3,
        operator,
        "linear",
    ]
    image = pixels(CASES[name][0])
    expected = float_value(before, image.astype(np.float32))
    got = interpret(after, image) * logits_scale(after)
    noise = np.sum((got - expected) ** 2) / np.sum((expected - expected.mean()) ** 2)
    assert 10 * np.log10(1 / noise) > decibels


@pytest.mark.parametrize("isa", EVERY_ISA)
def test_kernels_equal_their_references(isa: str) -> None:
    calls = [
        call
        for name in ("softmax", "adalog", "8 bits", "4 bits")
        for call in calls_of(lower(block(*CASES[name])), pixels(CASES[name][0]))
    ]
    assert {name for name, *_ in calls} == {"linear", *(name for name, _ in EXPECTED.values())}
    check_all(calls, isa)
