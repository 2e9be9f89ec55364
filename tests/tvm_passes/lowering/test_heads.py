"""Attention whose heads have scales of their own, against the same graph in double precision."""

from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tvm import relax

from tests.tvm_passes.heads import Heads, adalog, uniform
from tests.tvm_passes.modules import Graph, apply_rules, build, configs, float_value, operators
from tvm_passes.errors import LoweringError
from tvm_passes.graph.fuse_attention import fuse_attention
from tvm_passes.graph.layout import collapse_views
from tvm_passes.interpret import interpret
from tvm_passes.lowering.attention import lower_matmul, lower_softmax
from tvm_passes.lowering.elementwise import lower_add
from tvm_passes.lowering.products import lower_conv2d
from tvm_passes.lowering.views import sink_dequantize

Array = NDArray[Any]
LOWER = (sink_dequantize, lower_softmax, lower_matmul)
FUSE = (*LOWER, collapse_views, fuse_attention)
WIDE = (0.002, 0.008, 0.032)  # 16 times from head to head


def position_bias(heads: int, tokens: int) -> Array:
    """Of relative positions, and a mask of some keys."""
    bias = np.random.default_rng(5).normal(size=(heads, tokens, tokens)) * 2
    bias[:, :, -2:] = -np.inf
    return bias


CASES = {
    "plain": Heads(WIDE, (0.03, 0.02, 0.01), (0.02, 0.08, 0.32), 16, 49, 0.1),
    "bias": Heads(WIDE, (0.04,) * 3, (0.3, 0.02, 0.1), 8, 17, 0.2, (0,) * 3, position_bias(3, 17)),
    "equal products": Heads(WIDE, WIDE[::-1], (0.32, 0.02, 0.08), 8, 17, 0.2),
    "zero points": Heads(WIDE, WIDE, (0.1, 0.2, 0.1), 24, 33, 0.1, (5, -3, 7)),
    "one scale of q": Heads((0.01,) * 3, WIDE, (0.1,) * 3, 16, 49, 0.1),
    "only v": Heads((0.01,) * 3, (0.01,) * 3, (0.02, 0.08, 0.32), 64, 197, 0.1),
}


def differences(case: Heads, *rules: Any, between: Any = None, seed: int = 0) -> Array:
    before = case.module(between)
    arrays = case.codes(seed)
    got = interpret(apply_rules(before, *rules), *arrays)
    return np.abs(got.astype(int) - float_value(before, *arrays))


@pytest.mark.parametrize("name", CASES)
def test_products_and_softmax_keep_the_scales_of_heads(name: str) -> None:
    after = apply_rules(CASES[name].module(), *LOWER)
    assert [op for op in operators(after) if op in ("matmul", "softmax")] == [
        *("matmul", "softmax", "matmul")
    ]
    scores, values = configs(after, "matmul")
    assert scores.raw == (name == "only v")
    assert isinstance(values.multiplier, tuple) == (name != "one scale of q")
    found = differences(CASES[name], *LOWER)
    assert np.all(found <= CASES[name].bound())
    assert np.mean(found > 0) < 0.1


@pytest.mark.parametrize("name", CASES)
def test_the_fused_operator_keeps_the_scales_of_heads(name: str) -> None:
    assert "attention" in operators(apply_rules(CASES[name].module(), *FUSE))
    found = differences(CASES[name], *FUSE)
    assert np.all(found <= CASES[name].bound())
    assert np.mean(found > 0) < 0.1


@pytest.mark.parametrize("rules", [LOWER, FUSE], ids=["apart", "fused"])
def test_adalog_codes_of_heads_differ_only_at_rounding_boundaries(rules: Any) -> None:
    """A code that is off by one moves its weight by 2^(20/37) - 1."""
    case = CASES["bias"]
    after = apply_rules(case.module(adalog(20, 5)), *rules)
    assert ("adalog_attention" in operators(after)) == (rules is FUSE)
    found = differences(case, *rules, between=adalog(20, 5))
    assert found.max() <= 20 and np.mean(found > 1) < 0.05


@pytest.mark.parametrize("rules", [LOWER, FUSE], ids=["apart", "fused"])
def test_uniform_codes_of_heads_differ_only_at_rounding_boundaries(rules: Any) -> None:
    """Where a code is off by one, it moves the output by a fifteenth of its v."""
    case, between = CASES["bias"], uniform(1 / 15, -8, (-8, 7))
    after = apply_rules(case.module(between), *rules)
    assert ("uniform_attention" in operators(after)) == (rules is FUSE)
    found = differences(case, *rules, between=between)
    assert np.mean(found > 0) < 0.05


octaves = st.lists(st.floats(-2.0, 2.0), min_size=3, max_size=3)


@settings(max_examples=15, deadline=None)
@given(octaves, octaves, octaves, st.sampled_from([8, 20]), st.integers(2, 60), st.booleans())
def test_any_scales_of_heads_stay_within_the_bound(
    q: list[float], k: list[float], v: list[float], width: int, tokens: int, biased: bool
) -> None:
    scales = [(base * 2.0 ** np.array(e)).tolist() for base, e in ((0.01, q), (0.02, k), (0.1, v))]
    bias = position_bias(3, tokens) if biased and tokens > 2 else None
    case = Heads(*scales, width, tokens, 0.1, (3, 0, -2), bias)
    for rules in (LOWER, FUSE):
        assert np.all(differences(case, *rules, seed=tokens) <= case.bound())


def test_heads_that_share_their_scales_have_one_multiplier() -> None:
    case = Heads((0.01,) * 3, (0.02,) * 3, (0.1,) * 3, 8, 17, 0.1)
    (config,) = configs(apply_rules(case.module(), *FUSE), "attention")
    assert not [value for value in vars(config).values() if isinstance(value, tuple)]


def test_a_very_fine_head_beside_a_coarse_one() -> None:
    """Their scales are 2^20 apart: accumulators of the fine one do not fit the common scale."""
    case = Heads((2.0**-22, 2.0**-2), (1.0, 1.0), (0.1, 0.1), 8, 30, 0.1)
    for rules in (LOWER, FUSE):
        assert np.all(differences(case, *rules) <= case.bound())


@pytest.mark.parametrize("operand", [0, 1, 2])
def test_scales_within_a_head_are_refused(operand: int) -> None:
    case = CASES["plain"]
    each = [np.ones(48), np.ones(48), np.ones(48)]
    each[operand] = np.arange(1.0, 49)

    def body(graph: Graph, *codes: Any) -> Any:
        zeros = np.zeros(48)
        parts = [
            graph.dequantize(x, scale, zeros, axis=2) for x, scale in zip(codes, each, strict=True)
        ]
        return case.attend(graph, parts, name="blocks.3.attn")

    name = "blocks.3.attn" if operand == 2 else "blocks.3.attn.softmax"
    with pytest.raises(
        LoweringError, match=rf"^{name}: an operand .* with scales of shape \[1, 3, "
    ):
        mod = build([((1, 49, 48), "int8")] * 3, body)
        apply_rules(mod, *LOWER)


def test_zero_points_of_heads_are_refused() -> None:
    case = CASES["plain"]

    def body(graph: Graph, *codes: Any) -> Any:
        zeros = np.repeat([0, 1, 2], 16)
        parts = [graph.dequantize(x, np.full(48, 0.1), zeros, axis=2) for x in codes]
        return case.attend(graph, parts)

    with pytest.raises(
        LoweringError, match=r"attn.softmax: .* zero points of shape \[1, 3, 1, 1\]"
    ):
        apply_rules(build([((1, 49, 48), "int8")] * 3, body), *LOWER)


def convolutions() -> tvm.IRModule:
    """q, k and v by 1x1 convolutions of a 7x7 map, and a depthwise one of v beside attention."""
    heads, width = 3, 8
    rng = np.random.default_rng(7)

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        emit = graph.emit

        def projected(scales: Any, name: str) -> relax.Var:
            each = np.repeat(scales, width)
            rows = rng.normal(size=(heads * width, 12, 1, 1)) * each[:, None, None, None] * 3
            y = emit(relax.op.nn.conv2d(graph.dequantize(x, 0.1), graph.weights(rows)))
            return graph.stored(y, each, np.zeros(len(each)), name=name, axis=1)

        def split(y: relax.Expr) -> relax.Var:
            return emit(relax.op.reshape(y, (1, heads, width, 49)))

        def turned(y: relax.Expr) -> relax.Var:
            return emit(relax.op.permute_dims(y, [0, 1, 3, 2]))

        q, k = projected(WIDE, "q"), projected((0.05, 0.03, 0.02), "k")
        v = projected((0.02, 0.08, 0.32), "v")
        scores = emit(relax.op.matmul(turned(split(q)), split(k)))
        bias = relax.const(position_bias(heads, 49).astype(np.float32))
        p = emit(relax.op.nn.softmax(emit(relax.op.add(scores, bias))))
        y = emit(relax.op.matmul(graph.stored(p, 2.0**-15, 0, "int16"), turned(split(v))))
        y = turned(graph.stored(y, 0.1, 0, name="attn"))
        y = emit(relax.op.reshape(y, (1, heads * width, 7, 7)))
        w = graph.weights(rng.normal(size=(heads * width, 1, 3, 3)) / 3)
        local = relax.op.nn.conv2d(v, w, padding=(1, 1, 1, 1), groups=heads * width)
        local = graph.stored(emit(local), 0.1, 0, name="local")
        return graph.quantize(emit(relax.op.add(y, local)), 0.23, 0)

    return build([((1, 12, 7, 7), "int8")], body)


def test_convolutions_hand_their_scales_to_heads() -> None:
    before = convolutions()
    rules = (sink_dequantize, lower_conv2d, lower_softmax, lower_matmul, lower_add)
    after = apply_rules(before, *rules, collapse_views, fuse_attention)
    kernels = [name for name in operators(after) if name not in ("reshape", "permute_dims", "pad")]
    assert sorted(kernels) == ["add", "attention", "conv2d", "linear", "linear", "linear"]
    x = np.random.default_rng(8).integers(-60, 60, (1, 12, 7, 7)).astype(np.int8)
    found = np.abs(interpret(after, x).astype(int) - float_value(before, x))
    assert found.max() <= 2 and np.mean(found > 0) < 0.05
