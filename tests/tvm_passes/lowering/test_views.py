"""Views act on codes: dequantize moves below them."""

from collections.abc import Callable

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tests.tvm_passes.modules import (
    Graph,
    apply_rules,
    assert_rewrites,
    build,
    float_value,
    operators,
    text,
)
from tests.tvm_passes.run_kernel import codes
from tvm_passes.lowering.quantized import is_integer_call
from tvm_passes.lowering.views import sink_dequantize
from tvm_passes.ops.qdq import DequantizeConfig, DequantizeLogConfig
from tvm_passes.rewrite import main_bindings

D, LOG = text(DequantizeConfig(-1)), text(DequantizeLogConfig(1, 1, 4, 0.0))


@I.ir_module
class Before:
    @R.function
    def main(x: R.Tensor((2, 6), "int8")) -> R.Tensor((3, 2), "float32"):
        with R.dataflow():
            real = R.pocketvit.dequantize(x, R.const(0.5, "float32"), R.const(3, "int32"), R.str(D))
            cut = R.strided_slice(real, [1], [1], [5], [2])
            turned = R.permute_dims(cut, [1, 0])
            shaped = R.reshape(turned, (4,))
            again = R.reshape(shaped, (2, 2))
            both = R.concat((again, R.reshape(cut, (2, 2))), axis=0)
            result = R.strided_slice(both, [0], [0], [3])
            R.output(result)
        return result


@I.ir_module
class After:
    @R.function
    def main(x: R.Tensor((2, 6), "int8")) -> R.Tensor((3, 2), "float32"):
        with R.dataflow():
            cut = R.strided_slice(x, [1], [1], [5], [2])
            turned = R.permute_dims(cut, [1, 0])
            shaped = R.reshape(turned, (4,))
            again = R.reshape(shaped, (2, 2))
            other = R.reshape(cut, (2, 2))
            both = R.concat((again, other), axis=0)
            short = R.strided_slice(both, [0], [0], [3])
            result = R.pocketvit.dequantize(
                short, R.const(0.5, "float32"), R.const(3, "int32"), R.str(D)
            )
            R.output(result)
        return result


@I.ir_module
class LogBefore:
    @R.function
    def main(x: R.Tensor((2, 6), "uint8")) -> R.Tensor((6, 2), "float32"):
        with R.dataflow():
            real = R.pocketvit.dequantize_log(x, R.const(1.0, "float32"), R.str(LOG))
            turned = R.permute_dims(real)
            R.output(turned)
        return turned


@I.ir_module
class LogAfter:
    @R.function
    def main(x: R.Tensor((2, 6), "uint8")) -> R.Tensor((6, 2), "float32"):
        with R.dataflow():
            turned = R.permute_dims(x)
            real = R.pocketvit.dequantize_log(turned, R.const(1.0, "float32"), R.str(LOG))
            R.output(real)
        return real


def test_every_view_moves_above_dequantize() -> None:
    assert_rewrites(Before, After, sink_dequantize)
    assert_rewrites(LogBefore, LogAfter, sink_dequantize)
    x = codes("int8", 2, 6)
    np.testing.assert_array_equal(float_value(Before, x), float_value(After, x))


VIEWS: dict[str, Callable[[relax.Expr], relax.Expr]] = {
    "to the front": lambda x: relax.op.permute_dims(x, [2, 0, 1]),
    "to the end": lambda x: relax.op.permute_dims(x, [0, 2, 1]),
    "reversed": relax.op.permute_dims,
    "joined": lambda x: relax.op.reshape(x, (2, 12)),
    "split": lambda x: relax.op.reshape(x, (2, 1, 3, 2, 2)),
    "across": lambda x: relax.op.reshape(x, (2, 2, 2, 3)),
    "sliced": lambda x: relax.op.strided_slice(x, [1, 2], [1, 0], [3, 4], [1, 3]),
}


@pytest.mark.parametrize("name", VIEWS)
def test_scales_of_channels_move_with_every_view(name: str) -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        real = graph.dequantize(x, [0.1, 0.2, 0.4], [1, -2, 3], axis=1)
        return graph.emit(VIEWS[name](real))

    before = build([((2, 3, 4), "int8")], body)
    after = apply_rules(before, sink_dequantize)
    (view,) = set(operators(after)) - {"dequantize"}
    assert operators(after) == [view, "dequantize"]
    x = codes("int8", 2, 3, 4)
    np.testing.assert_array_equal(float_value(before, x), float_value(after, x))


def test_heads_keep_one_scale_each() -> None:
    """[1, N, 3 * H * D], with scales per head, becomes [1, H, N, D] of q, and of k and v alike."""
    heads, width = np.repeat([0.1, 0.2, 0.4, 0.8, 0.8, 0.8], 4), 4

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        y = graph.dequantize(x, heads, np.full(24, 5), axis=2)
        y = graph.emit(relax.op.reshape(y, (1, 7, 3, 2, width)))
        y = graph.emit(relax.op.permute_dims(y, [2, 0, 3, 1, 4]))
        q, k, v = (relax.op.strided_slice(y, [0], [i], [i + 1]) for i in range(3))
        q = graph.emit(relax.op.reshape(q, (1, 2, 7, width)))
        return graph.emit(relax.op.matmul(q, graph.emit(relax.op.reshape(v, (1, 2, width, 7)))))

    after = apply_rules(build([((1, 7, 24), "int8")], body), sink_dequantize)
    scales = [
        binding.value.args[1].value.numpy()
        for binding in main_bindings(after)
        if is_integer_call(binding.value, "dequantize")
    ]
    assert [scale.shape for scale in scales] == [(1, 2, 1, 1), ()]
    np.testing.assert_array_equal(scales[0].ravel(), np.float32([0.1, 0.2]))


def test_constant_weights_are_viewed_at_once() -> None:
    w = np.random.default_rng(0).normal(size=(5, 3))

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        turned = graph.emit(relax.op.permute_dims(graph.weights(w), [1, 0]))
        shaped = graph.emit(relax.op.reshape(turned, (1, 3, 5)))
        return graph.emit(relax.op.matmul(graph.dequantize(x, 1.0), shaped))

    before = build([((2, 3), "int8")], body)
    after = apply_rules(before, sink_dequantize)
    assert operators(after) == ["dequantize", "dequantize", "matmul"]
    x = codes("int8", 2, 3)
    np.testing.assert_array_equal(float_value(before, x), float_value(after, x))


def test_parts_in_different_formats_are_not_joined() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        parts = [graph.dequantize(x, 1.0), graph.dequantize(x, 0.5)]
        return graph.emit(relax.op.concat(parts, 0))

    before = build([((2, 3), "int8")], body)
    assert_rewrites(before, before, sink_dequantize)
