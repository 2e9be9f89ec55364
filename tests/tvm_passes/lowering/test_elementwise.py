"""Sums, products, joins and changes of format."""

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
    assert_close,
    assert_rewrites,
    build,
    configs,
    operators,
    quantize_config,
    text,
)
from tests.tvm_passes.run_kernel import codes
from tvm_passes.errors import LoweringError
from tvm_passes.interpret import interpret
from tvm_passes.lowering.elementwise import (
    lower_add,
    lower_concat,
    lower_multiply,
    lower_requantize,
)
from tvm_passes.ops.add import add_config
from tvm_passes.ops.base import call
from tvm_passes.ops.elementwise import RequantizeConfig, mul_config
from tvm_passes.ops.qdq import DequantizeConfig, QuantizeConfig

D, Q = text(DequantizeConfig(-1)), text(quantize_config())
ADD = text(add_config(0.5, 3, 0.25, 0, 1.0, -1, -128, 127, "int8", "int8", "int16"))
MUL = text(mul_config(0.5, 3, 0.25, 0, 1.0, -1, -128, 127, "int8", "int8", "int16"))
HALVE = text(RequantizeConfig(3, 0, 2**30, -1, -128, 127, "int8"))

Body = Callable[[Graph, relax.Var, relax.Var], relax.Expr]
TWO = [((1, 4, 6), "int8"), ((1, 4, 6), "int16")]


def two(body: Body, shapes: list[Any] = TWO) -> tvm.IRModule:
    return build(shapes, body)


def inputs(shapes: list[Any] = TWO) -> list[Any]:
    return [codes(dtype, *shape) for shape, dtype in shapes]


@I.ir_module
class Before:
    @R.function
    def main(a: R.Tensor((1, 4), "int8"), b: R.Tensor((1, 4), "int16")):
        with R.dataflow():
            x = R.pocketvit.dequantize(a, R.const(0.5, "float32"), R.const(3, "int32"), R.str(D))
            y = R.pocketvit.dequantize(b, R.const(0.25, "float32"), R.const(0, "int32"), R.str(D))
            sum_ = R.pocketvit.quantize(
                R.add(x, y), R.const(1.0, "float32"), R.const(-1, "int32"), R.str(Q)
            )
            product = R.pocketvit.quantize(
                R.multiply(x, y), R.const(1.0, "float32"), R.const(-1, "int32"), R.str(Q)
            )
            other = R.pocketvit.quantize(x, R.const(1.0, "float32"), R.const(-1, "int32"), R.str(Q))
            result = (sum_, product, other)
            R.output(result)
        return result


@I.ir_module
class After:
    @R.function
    def main(a: R.Tensor((1, 4), "int8"), b: R.Tensor((1, 4), "int16")):
        with R.dataflow():
            sum_ = R.pocketvit.add(a, b, R.str(ADD))
            product = R.pocketvit.mul(a, b, R.str(MUL))
            other = R.pocketvit.requantize(a, R.str(HALVE))
            result = (sum_, product, other)
            R.output(result)
        return result


def test_each_becomes_one_integer_operator() -> None:
    assert_rewrites(Before, After, lower_add, lower_multiply, lower_requantize)


@pytest.mark.parametrize("out", [(0.1, 3), (0.001, 0, "int16")])
def test_sums(out: tuple[Any, ...]) -> None:
    before = two(
        lambda graph, a, b: graph.quantize(
            graph.emit(relax.op.add(graph.dequantize(a, 0.05, 9), graph.dequantize(b, 3e-4))), *out
        )
    )
    after = apply_rules(before, lower_add)
    assert operators(after) == ["add"]
    assert_close(before, after, *inputs(), share=0.1)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("shape", [(6,), (1, 4, 1), (1, 4, 6), ()])
def test_sums_with_a_constant(first: bool, shape: tuple[int, ...]) -> None:
    constant = relax.const(np.linspace(-3, 5, int(np.prod(shape))).reshape(shape).astype("float32"))

    def body(graph: Graph, a: relax.Var, b: relax.Var) -> relax.Expr:
        real = graph.dequantize(a, 0.05, 9)
        pair = (constant, real) if first else (real, constant)
        return graph.quantize(graph.emit(relax.op.add(*pair)), 0.07, 3)

    after = apply_rules(two(body), lower_add)
    assert operators(after) == ["add"]
    assert_close(two(body), after, *inputs(), share=0.1)


def scaled_sum(factor_shape: tuple[int, ...], other: str) -> tvm.IRModule:
    """``a * factors + b``, b computed or constant."""
    count = int(np.prod(factor_shape))
    factors = np.linspace(-1.43, 1.91, count).reshape(factor_shape).astype(np.float32)

    def body(graph: Graph, a: relax.Var, b: relax.Var) -> relax.Expr:
        scaled = graph.emit(relax.op.multiply(graph.dequantize(a, 0.05, 9), relax.const(factors)))
        constant = relax.const(np.linspace(0, 2, 6).astype(np.float32))
        right = graph.dequantize(b, 3e-4) if other == "computed" else constant
        return graph.quantize(graph.emit(relax.op.add(right, scaled)), 0.1, 3)

    return two(body)


@pytest.mark.parametrize("other", ["computed", "constant"])
@pytest.mark.parametrize("factor_shape", [(), (6,), (1, 4, 1), (1, 1, 6)])
def test_scaled_sums(factor_shape: tuple[int, ...], other: str) -> None:
    before = scaled_sum(factor_shape, other)
    after = apply_rules(before, lower_add)
    assert ("scaled_add" in operators(after)) == (factor_shape != ())
    assert_close(before, after, *inputs(), share=0.1)


def test_factors_along_two_axes_are_refused() -> None:
    with pytest.raises(LoweringError, match="y: factors of a sum vary along more than one"):
        apply_rules(scaled_sum((1, 4, 6), "computed"), lower_add)


def test_sums_of_anything_else_are_left_alone() -> None:
    def body(graph: Graph, a: relax.Var, b: relax.Var) -> relax.Expr:
        relu = graph.pointwise("relu", graph.dequantize(a, 1.0))
        return graph.quantize(graph.emit(relax.op.add(relu, graph.dequantize(b, 1.0))), 1.0)

    assert_rewrites(two(body), two(body), lower_add, lower_multiply, lower_concat)


def test_an_operand_with_a_scale_per_channel_is_refused() -> None:
    def body(graph: Graph, a: relax.Var, b: relax.Var) -> relax.Expr:
        left = graph.dequantize(a, np.arange(1, 7) * 0.1, np.zeros(6), axis=2)
        return graph.quantize(graph.emit(relax.op.add(left, graph.dequantize(b, 1.0))), 1.0)

    with pytest.raises(LoweringError, match="y: an operand needs one scale"):
        apply_rules(two(body), lower_add)


@pytest.mark.parametrize("shapes", [TWO, [((1, 4, 6), "int8"), ((1, 4, 1), "int8")]])
def test_products(shapes: list[Any]) -> None:
    def body(graph: Graph, a: relax.Var, b: relax.Var) -> relax.Expr:
        right = graph.dequantize(b, 3e-4 if shapes[1][1] == "int16" else 0.1)
        product = graph.emit(relax.op.multiply(graph.dequantize(a, 0.05, 9), right))
        return graph.quantize(product, 0.4, 3)

    after = apply_rules(two(body, shapes), lower_multiply)
    assert operators(after) == ["mul"]
    assert_close(two(body, shapes), after, *inputs(shapes), share=0.1)


def test_a_constant_factor_is_a_change_of_format() -> None:
    def body(graph: Graph, a: relax.Var, b: relax.Var) -> relax.Expr:
        factor = relax.const(0.125, "float32")
        return graph.quantize(
            graph.emit(relax.op.multiply(graph.dequantize(a, 0.05, 9), factor)), 0.01, 3
        )

    after = apply_rules(two(body), lower_multiply)
    assert operators(after) == ["requantize"]
    assert_close(two(body), after, *inputs(), share=0.1)


@pytest.mark.parametrize("out", [(0.07, -4), (2e-4, 0, "int16")])
def test_changes_of_format(out: tuple[Any, ...]) -> None:
    before = two(lambda graph, a, b: graph.quantize(graph.dequantize(a, 0.05, 9), *out))
    assert_close(before, apply_rules(before, lower_requantize), *inputs(), share=0.1)


def test_the_same_format_costs_nothing_unless_its_range_is_narrower() -> None:
    def twice(low: int, high: int) -> tvm.IRModule:
        """int8 -> [-100, 90] -> [low, high], the latter two with one scale."""

        def body(graph: Graph, a: relax.Var, b: relax.Var) -> relax.Expr:
            real = graph.dequantize(a, 0.05, 9)
            form = np.array(0.06, np.float32), np.array(9, np.int32)
            for limits in ((-100, 90), (low, high)):
                config = QuantizeConfig(*limits, -1, "int8", "y")
                last = graph.emit(call("quantize", config, real, *form))
                real = graph.dequantize(last, *form)
            return last

        return two(body)

    for low, high, expected in [(-128, 127, 1), (-100, 90, 1), (-100, 50, 2), (-8, 127, 2)]:
        after = apply_rules(twice(low, high), lower_requantize)
        assert operators(after) == ["requantize"] * expected
        assert_close(twice(low, high), after, *inputs(), share=0.1)


def test_parts_of_a_join_are_brought_to_one_format() -> None:
    constant = np.linspace(-5, 5, 6).reshape(1, 1, 6).astype(np.float32)

    def body(graph: Graph, a: relax.Var, b: relax.Var) -> relax.Expr:
        parts = [
            relax.const(constant),
            graph.dequantize(a, 0.05, 9),
            graph.dequantize(b, 3e-4),
            graph.dequantize(a, 0.0625, 3),
        ]
        joined = graph.emit(relax.op.concat(parts, axis=1))
        return graph.quantize(joined, 0.0625, 3)

    after = apply_rules(two(body), lower_concat)
    assert operators(after) == ["requantize", "requantize", "concat"]
    assert_close(two(body), after, *inputs(), share=0.1)
    head = interpret(after, *inputs())[0, 0]
    np.testing.assert_array_equal(head, np.floor(constant[0, 0] / 0.0625 + 0.5) + 3)


def test_configurations_keep_the_ranges_of_the_quantizers() -> None:
    before = two(
        lambda graph, a, b: graph.quantize(
            graph.emit(relax.op.add(graph.dequantize(a, 0.05, 9), graph.dequantize(b, 3e-4))),
            0.1,
            0,
            "int16",
        )
    )
    (config,) = configs(apply_rules(before, lower_add), "add")
    assert (config.qmin, config.qmax, config.dtype) == (-32767, 32767, "int16")
