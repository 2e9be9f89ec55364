"""What nobody reads is not computed, and results do not change."""

from collections.abc import Callable

import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tests.tvm_passes.graph.networks import (
    ADD,
    RAW,
    REQUANTIZE,
    assert_same,
    linear,
    norm_config,
)
from tests.tvm_passes.modules import Graph, assert_module, build, operators, text
from tests.tvm_passes.run_kernel import codes
from tvm_passes.graph.crop import crop_unread
from tvm_passes.ops.base import TensorSpec, call
from tvm_passes.ops.heads import PerHead
from tvm_passes.ops.matmul import MatmulConfig
from tvm_passes.ops.pad import PadConfig
from tvm_passes.rewrite import main_bindings

NORM = norm_config(6)
Body = Callable[..., relax.Expr]


def cropped(mod: tvm.IRModule) -> tvm.IRModule:
    """The module after the pass, proved to compute the same."""
    after = crop_unread(mod)
    assert_same(mod, after)
    return after


def shapes(mod: tvm.IRModule, name: str) -> list[tuple[int, ...]]:
    """Shapes of the results of all calls of an operator."""
    results = [b.var for b in main_bindings(mod) if isinstance(b.value, relax.Call)]
    found = zip(operators(mod), results, strict=True)
    return [TensorSpec.of(result).shape for operator, result in found if operator == name]


@I.ir_module
class Before:
    @R.function
    def main(x: R.Tensor((1, 5, 6), "int8"), y: R.Tensor((1, 5, 6), "int8")):
        with R.dataflow():
            a = R.pocketvit.requantize(x, R.str(text(REQUANTIZE)))
            b = R.pocketvit.layer_norm(a, R.str(text(NORM)))
            c = R.pocketvit.add(b, y, R.str(text(ADD)))
            d = R.strided_slice(c, [1], [2], [3], assume_inbound=False)
            R.output(d)
        return d


@I.ir_module
class After:
    @R.function
    def main(x: R.Tensor((1, 5, 6), "int8"), y: R.Tensor((1, 5, 6), "int8")):
        with R.dataflow():
            s = R.strided_slice(x, [1], [2], [3], assume_inbound=False)
            a = R.pocketvit.requantize(s, R.str(text(REQUANTIZE)))
            b = R.pocketvit.layer_norm(a, R.str(text(NORM)))
            t = R.strided_slice(y, [1], [2], [3], assume_inbound=False)
            c = R.pocketvit.add(b, t, R.str(text(ADD)))
            R.output(c)
        return c


def test_slices_move_to_the_inputs() -> None:
    assert_module(crop_unread(Before), After)
    cropped(Before)


def of_one_input(shape: tuple[int, ...], body: Body) -> tvm.IRModule:
    return build([(shape, "int8")], lambda graph, x: body(graph, x))


def token(graph: Graph, x: relax.Expr, begin: int = 0, end: int = 1) -> relax.Var:
    return graph.emit(relax.op.strided_slice(x, [1], [begin], [end]))


def test_a_tensor_that_is_also_read_as_a_whole_stays_whole() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        both = graph.emit(call("requantize", REQUANTIZE, x))
        first = graph.emit(call("requantize", REQUANTIZE, token(graph, both)))
        return graph.emit(relax.op.concat([first, both], 1))

    after = cropped(of_one_input((1, 5, 6), body))
    assert shapes(after, "requantize") == [(1, 5, 6), (1, 1, 6)]


def test_readers_of_different_parts_share_the_hull() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        y = graph.emit(call("requantize", REQUANTIZE, x))
        parts = [token(graph, y, 1, 2), token(graph, y, 3, 4)]
        return graph.emit(relax.op.concat(parts, 1))

    after = cropped(of_one_input((1, 6, 6), body))
    assert shapes(after, "requantize") == [(1, 3, 6)]


def test_rows_of_products_are_cropped_and_columns_are_not() -> None:
    def rows(graph: Graph, x: relax.Var) -> relax.Expr:
        return token(graph, graph.emit(linear(x, 4)), 2, 4)

    def columns(graph: Graph, x: relax.Var) -> relax.Expr:
        y = graph.emit(linear(x, 4))
        return graph.emit(relax.op.strided_slice(y, [2], [1], [3]))

    assert shapes(cropped(of_one_input((1, 7, 6), rows)), "linear") == [(1, 2, 4)]
    assert shapes(cropped(of_one_input((1, 7, 6), columns)), "linear") == [(1, 7, 4)]


def test_one_query_is_enough_for_one_token() -> None:
    """Through the views that bring heads to the front and back; keys stay whole."""

    def body(graph: Graph, q: relax.Var, k: relax.Var) -> relax.Expr:
        heads = [
            graph.emit(relax.op.permute_dims(graph.emit(relax.op.reshape(x, (1, 5, 2, 3))), axes))
            for x, axes in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]))
        ]
        scores = graph.emit(call("matmul", RAW, *heads))  # [1, 2, 5, 5]
        turned = graph.emit(relax.op.permute_dims(scores, [0, 2, 1, 3]))
        tokens = graph.emit(relax.op.reshape(turned, (1, 5, 10)))
        return token(graph, tokens, 4, 5)

    after = cropped(build([((1, 5, 6), "int8")] * 2, body))
    assert shapes(after, "matmul") == [(1, 2, 1, 5)]


@pytest.mark.parametrize(("multiplier", "heads"), [(2**20, 1), ((2**20, 2**19), 2)])
def test_heads_are_cropped_unless_they_have_multipliers_of_their_own(
    multiplier: PerHead, heads: int
) -> None:
    product = MatmulConfig(True, 0, 0, False, 0, multiplier, 0, -128, 127, "int8")

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        return token(graph, graph.emit(call("matmul", product, x, x)))

    after = cropped(of_one_input((1, 2, 5, 6), body))
    assert shapes(after, "matmul") == [(1, heads, 5, 5)]


@pytest.mark.parametrize("axis", [1, 2])
def test_an_axis_that_a_view_divides_is_not_cropped(axis: int) -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        y = graph.emit(call("requantize", REQUANTIZE, x))
        z = graph.emit(relax.op.reshape(y, (1, 2, 3, 6)))
        return graph.emit(relax.op.strided_slice(z, [axis], [0], [1]))

    assert shapes(cropped(of_one_input((1, 6, 6), body)), "requantize") == [(1, 6, 6)]


def test_operators_that_look_around_read_everything() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        padded = graph.emit(call("pad", PadConfig((1, 1), (1, 1), 0), x))
        return token(graph, padded, 2, 3)

    after = cropped(of_one_input((1, 4, 4, 3), body))
    assert operators(after) == ["pad", "strided_slice"]


def test_steps_are_taken_at_the_end() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        y = graph.emit(call("requantize", REQUANTIZE, x))
        return graph.emit(relax.op.strided_slice(y, [1], [0], [7], [3]))

    assert operators(cropped(of_one_input((1, 7, 6), body))) == ["requantize", "strided_slice"]


def test_constants_are_cropped_with_what_they_meet() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        y = graph.emit(call("add", ADD, x, codes("int8", 5, 6)))
        return token(graph, graph.emit(call("add", ADD, y, codes("int8", 6))), 1, 4)

    after = cropped(of_one_input((1, 5, 6), body))
    assert shapes(after, "add") == [(1, 3, 6), (1, 3, 6)]
