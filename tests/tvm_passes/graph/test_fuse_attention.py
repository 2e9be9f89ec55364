"""Two products and a softmax become one operator, on tokens; anything else stays."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tests.tvm_passes.graph.networks import assert_same
from tests.tvm_passes.modules import apply_rules, assert_rewrites, build, operators, text
from tvm_passes.graph.fuse_attention import fuse_attention
from tvm_passes.graph.layout import collapse_views
from tvm_passes.interpret import interpret
from tvm_passes.numerics import Rescale
from tvm_passes.ops.add import add_config
from tvm_passes.ops.attention import attention_config
from tvm_passes.ops.base import call
from tvm_passes.ops.elementwise import requantize_config
from tvm_passes.ops.matmul import MatmulConfig
from tvm_passes.ops.pointwise import LutConfig, adalog_table
from tvm_passes.ops.softmax import (
    SoftmaxConfig,
    adalog_softmax_config,
    softmax_config,
    uniform_softmax_config,
)

SCALE, RATIO = 1e-3, 1.25
HEADS_FIRST = [0, 2, 1, 3]
SCORES = MatmulConfig(True, 3, -5, True, 0, 0, 0, 0, 0, "int32")
SOFTMAX = softmax_config(SCALE)


def values_config(bits: int = 15, zero_a: int = 0) -> MatmulConfig:
    form = Rescale.from_real(RATIO * 2.0**-bits)
    output = (form.left, int(form.multiplier), 2, -127, 127, "int8")
    return MatmulConfig(False, zero_a, 7, False, *output)


VALUES = values_config()
FUSED = attention_config(2, SCALE, RATIO, 3, 7, 2, "int8", (-127, 127))


@I.ir_module
class Before:
    @R.function
    def main(
        q: R.Tensor((1, 4, 6), "int8"),
        k: R.Tensor((1, 5, 6), "int8"),
        v: R.Tensor((1, 5, 8), "int8"),
    ):
        with R.dataflow():
            q0 = R.reshape(q, (1, 4, 2, 3))
            q1 = R.permute_dims(q0, [0, 2, 1, 3])
            k0 = R.reshape(k, (5, 2, 3))
            k1 = R.permute_dims(k0, [1, 0, 2])
            k2 = R.reshape(k1, (1, 2, 5, 3))
            v0 = R.reshape(v, (1, 5, 2, 4))
            v1 = R.permute_dims(v0, [0, 2, 1, 3])
            x = R.pocketvit.matmul(q1, k2, R.str(text(SCORES)))
            p = R.pocketvit.softmax(x, R.str(text(SOFTMAX)))
            y = R.pocketvit.matmul(p, v1, R.str(text(VALUES)))
            y0 = R.permute_dims(y, [0, 2, 1, 3])
            y1 = R.reshape(y0, (1, 4, 8))
            R.output(y1)
        return y1


@I.ir_module
class After:
    @R.function
    def main(
        q: R.Tensor((1, 4, 6), "int8"),
        k: R.Tensor((1, 5, 6), "int8"),
        v: R.Tensor((1, 5, 8), "int8"),
    ):
        with R.dataflow():
            y = R.pocketvit.attention(q, k, v, R.str(text(FUSED)))
            R.output(y)
        return y


def test_products_and_softmax_become_one_operator_on_tokens() -> None:
    assert_rewrites(Before, After, fuse_attention)


HEADS, QUERIES, KEYS, WIDTH = 2, 9, 30, 16
Emit = Callable[[relax.Expr], relax.Var]


def heads_of(emit: Emit, x: relax.Expr, tokens: int) -> relax.Var:
    split = emit(relax.op.reshape(x, (2, tokens, HEADS, WIDTH)))
    return emit(relax.op.permute_dims(split, HEADS_FIRST))


def attend(
    softmax: SoftmaxConfig | None = None,
    values: MatmulConfig = VALUES,
    bias: np.ndarray | None = None,
    between: Callable[[relax.Expr], relax.Expr] = lambda x: x,
    plain: bool = False,
    turned: bool = False,
    tokens: int = KEYS,
) -> tvm.IRModule:
    """Attention of operators.

    Args:
        softmax: its configuration.
        values: configuration of the second product.
        bias: added to the logits.
        between: what happens to the probabilities.
        plain: q comes with the heads in front.
        turned: the keys are turned before the product.
        tokens: number of keys.
    """
    q_shape = (2, HEADS, QUERIES, WIDTH) if plain else (2, QUERIES, HEADS * WIDTH)
    shapes = [q_shape, *[(2, tokens, HEADS * WIDTH)] * 2]

    def body(graph, q, k, v):  # type: ignore[no-untyped-def]
        emit = graph.emit
        if not plain:
            q = heads_of(emit, q, QUERIES)
        k, v = (heads_of(emit, x, tokens) for x in (k, v))
        if turned:
            k = emit(relax.op.permute_dims(k, [0, 1, 3, 2]))
        x = emit(call("matmul", replace(SCORES, transpose_b=not turned), q, k))
        extra = [] if bias is None else [bias]
        p = emit(call("softmax", softmax or SOFTMAX, x, *extra))
        y = emit(call("matmul", values, emit(between(p)), v))
        back = emit(relax.op.permute_dims(y, HEADS_FIRST))
        return emit(relax.op.reshape(back, (2, QUERIES, HEADS * WIDTH)))

    return build([(shape, "int8") for shape in shapes], body)


def codes(mod: tvm.IRModule, spread: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [tuple(map(int, param.ty.shape)) for param in mod["main"].params]
    return [np.clip(rng.normal(size=shape) * spread, -128, 127).astype(np.int8) for shape in shapes]


BIAS = np.random.default_rng(1).integers(-4000, 4000, (HEADS, 1, KEYS)).astype(np.int32)
FUSABLE = {
    "plain": attend(),
    "bias": attend(bias=BIAS),
    "turned keys": attend(turned=True),
    "long rows": attend(tokens=600),
}


@pytest.mark.parametrize("name", FUSABLE)
@pytest.mark.parametrize("spread", [5.0, 20.0, 90.0])  # even to peaky rows
def test_the_fused_operator_computes_the_same_but_for_rounding(name: str, spread: float) -> None:
    before = FUSABLE[name]
    after = apply_rules(before, collapse_views, fuse_attention)
    assert operators(after) == ["attention"]
    inputs = codes(before, spread)
    difference = interpret(after, *inputs).astype(int) - interpret(before, *inputs)
    if name == "long rows":  # which the fused operator rounds less
        assert np.sqrt(np.mean(difference**2)) < 1.5
    else:
        assert np.abs(difference).max() <= 1 and np.mean(difference != 0) < 0.05


UNIFORM = {
    "8 bits": (2.0**-8, -128, 127),
    "4 bits": (1 / 15, -8, 7),
    "4 bits above zero": (1 / 15, 0, 15),
    "clipped": (1 / 40, 0, 15),
}


def uniform(step: float, zero_point: int, qmax: int) -> tvm.IRModule:
    """Attention by int8 codes of probabilities."""
    form = Rescale.from_real(RATIO * step)
    output = (form.left, int(form.multiplier), 2, -127, 127, "int8")
    values = MatmulConfig(False, zero_point, 7, False, *output)
    return attend(uniform_softmax_config(SCALE, step, zero_point, qmax, "int8"), values, BIAS)


@pytest.mark.parametrize("name", UNIFORM)
@pytest.mark.parametrize("spread", [5.0, 20.0, 90.0])
def test_uniform_codes_stay_what_they_are(name: str, spread: float) -> None:
    before = apply_rules(uniform(*UNIFORM[name]), collapse_views)
    after = apply_rules(before, fuse_attention)
    assert operators(after) == ["uniform_attention"]
    inputs = codes(before, spread)
    difference = interpret(after, *inputs).astype(int) - interpret(before, *inputs)
    assert np.sqrt(np.mean(difference**2)) < 0.5 and np.mean(difference == 0) > 0.8


def requantized(p: relax.Expr) -> relax.Call:
    config = requantize_config(2.0**-15, 0, 2.0**-15, 0, 0, 32767, "int16")
    return call("requantize", config, p)


def shifted(p: relax.Expr) -> relax.Expr:
    """Heads that change places, as talking heads may."""
    return relax.op.permute_dims(p, [1, 0, 2, 3])


def weighed(base: tuple[int, int], p: relax.Expr) -> relax.Call:
    """AdaLog codes as fixed-point weights."""
    return call("lut", LutConfig("int16"), p, adalog_table(*base, 4)[0])


def adalog(
    base: tuple[int, int] = (19, 37),
    zero_v: int = 0,
    out_scale: float = 1.0,
    tokens: int = KEYS,
) -> tvm.IRModule:
    """Attention by logarithmic codes of 4 bits; the base is 2 to the power of a fraction."""
    form = Rescale.from_real(RATIO / 32639)
    values = MatmulConfig(False, 0, zero_v, False, 0, int(form.multiplier), 2, -127, 127, "int8")
    softmax = adalog_softmax_config(SCALE, *base, 4, out_scale)
    bias = BIAS if tokens == KEYS else None
    return attend(softmax, values, bias, between=partial(weighed, base), tokens=tokens)


@pytest.mark.parametrize("base", [(19, 37), (1, 1), (1, 2)])
@pytest.mark.parametrize("spread", [5.0, 20.0, 90.0])
def test_adalog_codes_stay_what_they_are(base: tuple[int, int], spread: float) -> None:
    before = apply_rules(adalog(base), collapse_views)
    after = apply_rules(before, fuse_attention)
    assert operators(after) == ["adalog_attention"]
    inputs = codes(before, spread)
    difference = interpret(after, *inputs).astype(int) - interpret(before, *inputs)
    assert np.abs(difference).max() <= 4 and np.mean(difference != 0) < 0.05


KEPT = {
    "AdaLog codes, and a v with a zero point": adalog(zero_v=7),
    "AdaLog codes of probabilities far below one": adalog(out_scale=0.25),
    "probabilities of 12 bits": attend(
        uniform_softmax_config(SCALE, 2.0**-12, 0, 4095, "int16"), values_config(12)
    ),
    "probabilities clipped at a half": attend(
        uniform_softmax_config(SCALE, 2.0**-15, 0, 2**14, "int16")
    ),
    "an operator between": attend(between=requantized),
    "a view between": attend(between=shifted),
    "heads in front": attend(plain=True),
    "long rows of AdaLog codes": adalog(tokens=600),
    "a bias that may overflow": attend(bias=np.full((1, 1, KEYS), 2**30, np.int32)),
}


def test_a_map_that_a_sum_makes_is_written_as_tokens() -> None:
    """The sum may work pixel by pixel, so that no permutation remains."""
    add = add_config(1.0, 0, 1.0, 0, 1.0, 0, -128, 127, "int8", "int8", "int8")

    def body(graph, q, x, y):  # type: ignore[no-untyped-def]
        total = graph.emit(call("add", add, x, y))  # [1, C, H, W]
        keys = graph.emit(relax.op.reshape(total, (1, HEADS, WIDTH, 30)))
        turned = graph.emit(relax.op.permute_dims(keys, [0, 1, 3, 2]))
        split = graph.emit(relax.op.reshape(q, (1, QUERIES, HEADS, WIDTH)))
        q = graph.emit(relax.op.permute_dims(split, HEADS_FIRST))
        scores = graph.emit(call("matmul", replace(SCORES, transpose_b=False), q, keys))
        p = graph.emit(call("softmax", SOFTMAX, scores))
        return graph.emit(call("matmul", VALUES, p, turned))

    maps = [(1, HEADS * WIDTH, 5, 6)] * 2
    shapes = [((1, QUERIES, HEADS * WIDTH), "int8"), *[(shape, "int8") for shape in maps]]
    before = apply_rules(build(shapes, body), collapse_views)
    after = apply_rules(before, fuse_attention)
    assert operators(after).count("attention") == 1 and "matmul" not in operators(after)
    inputs = codes(before, 20)
    difference = interpret(after, *inputs).astype(int) - interpret(before, *inputs)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("name", KEPT)
def test_what_is_not_recognised_stays(name: str) -> None:
    before = apply_rules(KEPT[name], collapse_views)
    after = apply_rules(before, fuse_attention)
    assert not [name for name in operators(after) if "attention" in name]
    assert operators(after).count("matmul") == 2
    assert_same(before, after, *codes(before, 20))
