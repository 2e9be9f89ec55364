"""Reshapes and permutations vanish, and results do not change."""

from collections.abc import Callable
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
    assert_rewrites,
    build,
    configs,
    operators,
    text,
)
from tests.tvm_passes.run_kernel import codes
from tvm_passes.graph.layout import collapse_views, moves_data
from tvm_passes.interpret import interpret
from tvm_passes.ops.add import add_config
from tvm_passes.ops.base import call
from tvm_passes.ops.elementwise import requantize_config
from tvm_passes.ops.matmul import MatmulConfig
from tvm_passes.ops.pad import PadConfig
from tvm_passes.ops.pointwise import LutConfig
from tvm_passes.ops.pooling import mean_config
from tvm_passes.rewrite import main_bindings

REQUANTIZE = requantize_config(0.5, 3, 0.7, -1, -128, 127, "int8")
ADD = add_config(0.5, 3, 0.25, 0, 0.8, -1, -128, 127, "int8", "int8", "int8")
RAW = MatmulConfig(False, 0, 0, True, 0, 0, 0, 0, 0, 0, "int32")
SWAPPED = MatmulConfig(True, 0, 0, True, 0, 0, 0, 0, 0, 0, "int32")
TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]

Shapes = list[tuple[tuple[int, ...], str]]


def movements(mod: tvm.IRModule) -> int:
    """Operators that copy data."""
    return sum(moves_data(binding.value) for binding in main_bindings(mod))


def collapsed(mod: tvm.IRModule) -> tvm.IRModule:
    """The module after the pass, proved to compute the same."""
    after = apply_rules(mod, collapse_views)
    inputs = [codes(str(param.ty.dtype), *map(int, param.ty.shape)) for param in mod["main"].params]
    np.testing.assert_array_equal(interpret(after, *inputs), interpret(mod, *inputs))
    return after


def module(shapes: list[tuple[int, ...]], body: Callable[..., relax.Expr]) -> tvm.IRModule:
    """``body`` on int8 inputs of ``shapes``; ``body`` takes a function that binds, and inputs."""
    inputs: Shapes = [(shape, "int8") for shape in shapes]
    return build(inputs, lambda graph, *x: body(graph.emit, *x))


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
    assert_rewrites(Before, After, collapse_views)
    assert (movements(Before), movements(After)) == (2, 0)
    collapsed(Before)


def test_transposed_keys_are_read_where_they_lie() -> None:
    assert_rewrites(Scores, ScoresAfter, collapse_views)
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


def test_operands_with_different_views_keep_them() -> None:
    after = collapsed(residual(lambda emit, y: emit(relax.op.reshape(y, (1, 6, 4, 5)))))
    assert movements(after) == 2


def test_a_broadcast_constant_keeps_the_view() -> None:
    constant = relax.const(codes("int8", 6, 1, 1))
    after = collapsed(residual(lambda emit, y: constant))
    assert movements(after) == 2


@pytest.mark.parametrize(("axis", "joined"), [(1, (1, 4, 5, 12)), (2, (1, 8, 5, 6))])
def test_a_join_happens_before_a_shared_permutation(axis: int, joined: tuple[int, ...]) -> None:
    def body(emit: Callable[..., relax.Var], x: relax.Var, y: relax.Var) -> relax.Expr:
        parts = [emit(relax.op.permute_dims(part, TO_NCHW)) for part in (x, y)]
        return emit(relax.op.permute_dims(emit(relax.op.concat(parts, axis)), TO_NHWC))

    after = collapsed(module([(1, 4, 5, 6), (1, 4, 5, 6)], body))
    assert operators(after) == ["concat"]
    assert tuple(map(int, after["main"].ret_ty.shape)) == joined


def test_parts_with_different_permutations_are_joined_as_they_are() -> None:
    def body(emit: Callable[..., relax.Var], x: relax.Var, y: relax.Var) -> relax.Expr:
        parts = emit(relax.op.permute_dims(x, [0, 2, 1])), y
        return emit(relax.op.concat(list(parts), 1))

    assert movements(collapsed(module([(1, 4, 6), (1, 3, 4)], body))) == 2


def average(axes: tuple[int, ...], keepdims: bool, order: list[int]) -> tvm.IRModule:
    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        turned = emit(relax.op.permute_dims(x, order))
        shape = tuple((1, 4, 5, 6)[axis] for axis in order)
        form = (0.5, 3, 0.2, 1, -128, 127, "int8")
        options = {"shape": shape, "axes": axes, "keepdims": keepdims, "in_dtype": "int8"}
        config = mean_config(*form, **options)
        return emit(call("mean", config, turned))

    return module([(1, 4, 5, 6)], body)


def test_a_mean_is_taken_over_the_permuted_axes() -> None:
    after = collapsed(average((2, 3), False, TO_NCHW))
    assert operators(after) == ["mean"] and configs(after, "mean")[0].axes == (1, 2)
    after = collapsed(average((-1, -2), True, TO_NCHW))
    assert [name for name in operators(after) if name != "reshape"] == ["mean"]
    after = collapsed(average((1,), False, TO_NCHW))
    assert operators(after) == ["mean"] and configs(after, "mean")[0].axes == (3,)


def test_a_mean_whose_rest_changes_order_keeps_the_permutation() -> None:
    assert movements(collapsed(average((1,), False, [0, 1, 3, 2]))) == 1


def test_operators_by_row_do_not_let_views_pass() -> None:
    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        nchw = emit(relax.op.permute_dims(x, TO_NCHW))
        padded = emit(call("pad", PadConfig((1, 1), (1, 1), 0), nchw))
        return emit(relax.op.permute_dims(padded, TO_NHWC))

    assert movements(collapsed(module([(1, 4, 5, 6)], body))) == 3


def test_a_table_passes_through() -> None:
    table = codes("int8", 256)

    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        turned = emit(relax.op.permute_dims(x, [1, 0]))
        mapped = emit(call("lut", LutConfig("int8"), turned, table))
        return emit(relax.op.permute_dims(mapped, [1, 0]))

    assert operators(collapsed(module([(5, 7)], body))) == ["lut"]


@pytest.mark.parametrize(
    ("order", "transposed"), [([0, 2, 3, 1], True), ([0, 2, 1, 3], False), ([0, 1, 3, 2], True)]
)
def test_the_second_operand_of_a_product_keeps_its_rows(order: list[int], transposed: bool) -> None:
    """b [1, 5, 3, 8] as [.., K, N]: transposed where the innermost axis would move."""
    shape = tuple((1, 5, 3, 8)[axis] for axis in order)

    def body(emit: Callable[..., relax.Var], a: relax.Var, b: relax.Var) -> relax.Expr:
        turned = emit(relax.op.permute_dims(b, order))
        return emit(call("matmul", RAW, a, turned))

    after = collapsed(module([(1, shape[1], 2, shape[2]), (1, 5, 3, 8)], body))
    (config,) = configs(after, "matmul")
    assert config.transpose_b == transposed
    views = [b.value for b in main_bindings(after) if moves_data(b.value)]
    assert all(int(view.attrs.axes[-1]) == len(view.attrs.axes) - 1 for view in views)


def test_moves_data_knows_copies_from_reinterpretations() -> None:
    x = relax.Var("x", relax.TensorType((1, 4, 1, 6), "int8"))
    graph = Graph(relax.BlockBuilder())

    def moves(expr: Any) -> bool:
        return moves_data(graph.builder.normalize(expr))

    assert not moves(relax.op.permute_dims(x, [2, 1, 0, 3]))  # only axes of extent 1
    assert moves(relax.op.permute_dims(x, [0, 3, 2, 1]))
    assert not moves(relax.op.reshape(x, (24,)))
    assert moves(relax.op.strided_slice(x, [1], [0], [2]))
    assert moves(relax.op.concat([x, x], 0))
    assert moves(call("pad", PadConfig((1, 1), (1, 1), 0), x))
    assert not moves(call("requantize", REQUANTIZE, x))
