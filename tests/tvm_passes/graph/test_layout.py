"""Reshapes and permutations vanish, and results do not change."""

from collections.abc import Callable
from random import Random

import pytest
import tvm
from hypothesis import given, settings
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tests.tvm_passes.graph.networks import (
    ADD,
    RAW,
    REQUANTIZE,
    SWAPPED,
    TO_NCHW,
    TO_NHWC,
    collapsed,
    module,
    movements,
)
from tests.tvm_passes.graph.random_networks import SEEDS, Draw
from tests.tvm_passes.modules import assert_module, operators, text
from tests.tvm_passes.run_kernel import codes
from tvm_passes.graph.layout import assign_layouts
from tvm_passes.ops.base import call


def assert_becomes(before: tvm.IRModule, after: tvm.IRModule) -> None:
    """Assert that the pass turns ``before`` into ``after``."""
    assert_module(assign_layouts(before), after)


# one requantize between a permutation and its inverse; TVMScript, as all of ours can be written


@I.ir_module
class Before:
    @R.function
    def main(x: R.Tensor((1, 4, 5, 6), "int8")):
        with R.dataflow():
            a = R.permute_dims(x, [0, 3, 1, 2])
            b = R.reshape(a, (1, 6, 20))
            c = R.pocketvit.requantize(b, R.str(text(REQUANTIZE)))
            d = R.permute_dims(c, [0, 2, 1])
            e = R.reshape(d, (1, 4, 5, 6))
            R.output(e)
        return e


@I.ir_module
class After:
    @R.function
    def main(x: R.Tensor((1, 4, 5, 6), "int8")):
        with R.dataflow():
            c = R.pocketvit.requantize(x, R.str(text(REQUANTIZE)))
            R.output(c)
        return c


@I.ir_module
class Scores:
    @R.function
    def main(q: R.Tensor((1, 5, 8), "int8"), k: R.Tensor((1, 7, 8), "int8")):
        with R.dataflow():
            turned = R.permute_dims(k, [0, 2, 1])
            scores = R.pocketvit.matmul(q, turned, R.str(text(RAW)))
            R.output(scores)
        return scores


@I.ir_module
class ScoresAfter:
    @R.function
    def main(q: R.Tensor((1, 5, 8), "int8"), k: R.Tensor((1, 7, 8), "int8")):
        with R.dataflow():
            scores = R.pocketvit.matmul(q, k, R.str(text(SWAPPED)))
            R.output(scores)
        return scores


def test_a_view_meets_its_inverse_below_an_elementwise_operator() -> None:
    assert_becomes(Before, After)
    assert (movements(Before), movements(After)) == (2, 0)
    collapsed(Before)


def test_transposed_keys_are_read_where_they_lie() -> None:
    assert_becomes(Scores, ScoresAfter)
    collapsed(Scores)


def test_chains_of_views_become_one() -> None:
    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        for view in (
            lambda x: relax.op.reshape(x, (1, 4, 2, 3, 5)),
            lambda x: relax.op.permute_dims(x, [0, 2, 1, 3, 4]),
            lambda x: relax.op.reshape(x, (2, 4, 15)),
            lambda x: relax.op.permute_dims(x, [1, 0, 2]),
            lambda x: relax.op.permute_dims(x, [2, 0, 1]),
        ):
            x = emit(view(x))
        return x

    after = collapsed(module([(1, 4, 30)], body))
    assert movements(after) == 1


def test_a_chain_without_normal_form_stays() -> None:
    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        turned = emit(relax.op.permute_dims(x, [0, 2, 1]))
        return emit(relax.op.reshape(turned, (1, 8, 3)))  # 8 codes cut through a row of 6

    before = module([(1, 4, 6)], body)
    after = collapsed(before)
    assert operators(after)[-1] == "reshape" and movements(after) == 1


def residual(other: Callable[..., relax.Expr]) -> tvm.IRModule:
    """Two maps seen as NCHW, added, and seen as NHWC again."""

    def body(emit: Callable[..., relax.Var], x: relax.Var, y: relax.Var) -> relax.Expr:
        a, b = emit(relax.op.permute_dims(x, TO_NCHW)), other(emit, y)
        return emit(relax.op.permute_dims(emit(call("add", ADD, a, b)), TO_NHWC))

    return module([(1, 4, 5, 6), (1, 4, 5, 6)], body)


def test_a_shared_view_sinks_below_a_sum() -> None:
    after = collapsed(residual(lambda emit, y: emit(relax.op.permute_dims(y, TO_NCHW))))
    assert operators(after) == ["add"]


def test_a_constant_operand_is_rearranged() -> None:
    constant = relax.const(codes("int8", 1, 6, 4, 5))
    after = collapsed(residual(lambda emit, y: constant))
    assert operators(after) == ["add"]


def test_operands_with_different_views_meet_in_one_of_them() -> None:
    after = collapsed(residual(lambda emit, y: emit(relax.op.reshape(y, (1, 6, 4, 5)))))
    assert movements(after) == 1


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 1, 4, 1), (1,)])
def test_a_broadcast_constant_is_rearranged(shape: tuple[int, ...]) -> None:
    constant = relax.const(codes("int8", *shape))
    after = collapsed(residual(lambda emit, y: constant))
    assert movements(after) == 0


@settings(deadline=None)
@given(SEEDS)
def test_results_do_not_change(seed: int) -> None:
    collapsed(Draw(Random(seed)).network())
