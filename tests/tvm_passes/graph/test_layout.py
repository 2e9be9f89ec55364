"""Reshapes and permutations vanish, and results do not change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, prod
from random import Random
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tests.tvm_passes.modules import (
    Graph,
    build,
    configs,
    operators,
    text,
)
from tests.tvm_passes.product_calls import product_calls
from tests.tvm_passes.run_kernel import codes
from tvm_passes.graph import layout
from tvm_passes.graph.data_movement import moves_data
from tvm_passes.graph.layout import assign_layouts
from tvm_passes.graph.layout_search import LayoutSearch
from tvm_passes.graph.view_algebra import Layout, Permute, Shape, normalize
from tvm_passes.interpret import interpret
from tvm_passes.lowering.quantized import is_call
from tvm_passes.ops.add import add_config
from tvm_passes.ops.base import TensorSpec, call
from tvm_passes.ops.elementwise import requantize_config
from tvm_passes.ops.gemm import LinearConfig
from tvm_passes.ops.matmul import MatmulConfig
from tvm_passes.ops.norm import layer_norm_config
from tvm_passes.ops.pad import PadConfig
from tvm_passes.ops.pointwise import LutConfig
from tvm_passes.ops.pooling import mean_config
from tvm_passes.ops.softmax import softmax_config
from tvm_passes.rewrite import main_bindings, rewrite_main

REQUANTIZE = requantize_config(0.5, 3, 0.7, -1, -128, 127, "int8")
ADD = add_config(0.5, 3, 0.25, 0, 0.8, -1, -128, 127, "int8", "int8", "int8")
RAW = MatmulConfig(False, 0, 0, True, 0, 0, 0, 0, 0, "int32")
SWAPPED = MatmulConfig(True, 0, 0, True, 0, 0, 0, 0, 0, "int32")
SIMILAR = MatmulConfig(True, 0, 0, False, 0, 1 << 24, 3, -128, 127, "int8")
TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]

Shapes = list[tuple[tuple[int, ...], str]]


def movements(mod: tvm.IRModule) -> int:
    """Operators that copy data."""
    return sum(moves_data(binding.value) for binding in main_bindings(mod))


def collapsed(mod: tvm.IRModule) -> tvm.IRModule:
    """The module after the pass, proved to compute the same."""
    after = assign_layouts(mod)
    assert_same(mod, after)
    return after


def assert_same(mod: tvm.IRModule, after: tvm.IRModule) -> None:
    """Assert that two modules compute the same."""
    inputs = [codes(str(param.ty.dtype), *map(int, param.ty.shape)) for param in mod["main"].params]
    np.testing.assert_array_equal(interpret(after, *inputs), interpret(mod, *inputs))


def assert_becomes(before: tvm.IRModule, after: tvm.IRModule) -> None:
    """Assert that the pass turns ``before`` into ``after``."""
    unchanged = rewrite_main(after, lambda scope, expr: None)  # the same frame of bindings
    tvm.ir.assert_structural_equal(assign_layouts(before), unchanged)


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


def test_operators_that_look_around_want_their_own_layout() -> None:
    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        nchw = emit(relax.op.permute_dims(x, TO_NCHW))
        padded = emit(call("pad", PadConfig((1, 1), (1, 1), 0), nchw))
        return emit(relax.op.permute_dims(padded, TO_NHWC))

    assert movements(collapsed(module([(1, 4, 5, 6)], body))) == 3


def through(operator: Callable[..., relax.Expr], order: list[int]) -> tvm.IRModule:
    """``operator`` between a permutation of three axes and its inverse."""

    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        turned = emit(operator(emit(relax.op.permute_dims(x, order))))
        return emit(relax.op.permute_dims(turned, [order.index(axis) for axis in range(3)]))

    return module([(4, 6, 8)], body)


def rows(x: relax.Expr) -> relax.Expr:
    """A LayerNorm."""
    length = TensorSpec.of(x).shape[-1]
    form = (0.1, 1e-5, 0.03, 2, -128, 127, "int8")
    return call("layer_norm", layer_norm_config(*form, length=length, in_dtype="int8"), x)


def products(x: relax.Expr) -> relax.Expr:
    """A square linear."""
    shape = TensorSpec.of(x).shape
    dtypes = ("int8", "int8")
    _, config, (_, *constants) = product_calls(
        "linear", LinearConfig, shape, (shape[-1], shape[-1]), dtypes
    )[0]
    return call("linear", config, x, *constants)


@pytest.mark.parametrize("operator", [rows, products])
def test_rows_come_in_any_order(operator: Callable[..., relax.Expr]) -> None:
    assert movements(collapsed(through(operator, [1, 0, 2]))) == 0
    assert movements(collapsed(through(operator, [0, 2, 1]))) == 2


def test_the_elements_of_all_rows_come_in_any_order() -> None:
    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        turned = emit(relax.op.permute_dims(x, [1, 2, 0]))  # [6, 8, 4]
        flat = emit(rows(emit(relax.op.reshape(turned, (6, 32)))))
        back = emit(relax.op.reshape(flat, (6, 8, 4)))
        return emit(relax.op.permute_dims(back, [2, 0, 1]))

    after = collapsed(module([(4, 6, 8)], body))
    assert movements(after) == 2  # rows of 6, 8, 4 lie apart

    def whole(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        turned = emit(relax.op.permute_dims(x, [1, 2, 0]))
        flat = emit(rows(emit(relax.op.reshape(turned, (1, 192)))))
        back = emit(relax.op.reshape(flat, (6, 8, 4)))
        return emit(relax.op.permute_dims(back, [2, 0, 1]))

    assert movements(collapsed(module([(4, 6, 8)], whole))) == 0


def test_data_are_moved_where_they_are_narrow() -> None:
    """A view between two linears goes to the side with fewer channels, also below an activation."""

    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        padded = emit(call("pad", PadConfig((0, 0), (0, 0), 0), x))
        wide = emit(linear(padded, 64))
        active = emit(call("requantize", REQUANTIZE, wide))
        turned = emit(relax.op.permute_dims(active, [0, 2, 1, 3]))
        narrow = emit(linear(turned, 8))
        return emit(call("pad", PadConfig((0, 0), (0, 0), 0), narrow))

    def linear(x: relax.Expr, channels: int) -> relax.Expr:
        shape = TensorSpec.of(x).shape
        _, config, (_, *constants) = product_calls(
            "linear", LinearConfig, shape, (channels, shape[-1]), ("int8", "int8")
        )[0]
        return call("linear", config, x, *constants)

    after = collapsed(module([(1, 8, 8, 16)], body))
    moved = [b for b in main_bindings(after) if is_call(b.value, "relax.permute_dims")]
    assert [TensorSpec.of(binding.var).shape[-1] for binding in moved] == [8]


def test_readers_share_what_is_moved() -> None:
    """Three linears read one turned map; the sum with the map itself keeps it where it is."""

    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        first = emit(call("pad", PadConfig((0, 0), (0, 0), 0), x))
        parts = []
        for _ in range(3):
            turned = emit(relax.op.permute_dims(first, [0, 2, 1, 3]))
            parts.append(emit(call("pad", PadConfig((0, 0), (0, 0), 0), turned)))
        return emit(relax.op.concat(parts, 1))

    after = collapsed(module([(1, 4, 5, 6)], body))
    assert operators(after).count("permute_dims") == 1


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


@dataclass(frozen=True)
class Draw:
    """Random graphs; a seed draws faster than hypothesis does step by step."""

    random: Random

    def shape(self, size: int) -> list[int]:
        """A shape of ``size`` elements."""
        shape = [1]
        while size > 1:
            primes = [prime for prime in (2, 3, 5, 7) if size % prime == 0]
            factor = self.random.choice(primes or [size])
            size //= factor
            if self.random.random() < 0.6:
                shape.append(factor)
            else:
                shape[-1] *= factor
        return shape

    def order(self, rank: int) -> list[int]:
        """A permutation."""
        return self.random.sample(range(rank), rank)

    def broadcast(self, shape: Sequence[int]) -> list[int]:
        """A shape that fits ``shape``, some of its extents and leading axes left out."""
        sizes = [self.random.choice([1, extent, extent]) for extent in shape]
        return sizes[self.random.randrange(len(sizes)) :]

    def layout(self, shape: Shape) -> Layout:
        """Any order of the elements of a tensor, or of its rows."""
        source = self.shape(prod(shape))
        order = self.order(len(source))
        if shape and self.random.random() < 0.5:
            source = [*self.shape(prod(shape[:-1])), shape[-1]]
            order = [*self.order(len(source) - 1), len(source) - 1]
        view = normalize(tuple(source), [Permute(tuple(order))])
        assert view is not None
        return view.layout

    def step(self, x: relax.Var, tensors: list[relax.Var]) -> relax.Expr:
        """An operator on ``x``; int8 in, int8 out."""
        shape = TensorSpec.of(x).shape
        axis = self.random.randrange(len(shape))
        peers = [other for other in tensors if TensorSpec.of(other).shape == shape]
        choices: dict[str, Callable[[], relax.Expr]] = {
            "reshape": lambda: relax.op.reshape(x, self.shape(prod(shape))),
            "permute": lambda: relax.op.permute_dims(x, self.order(len(shape))),
            "requantize": lambda: call("requantize", REQUANTIZE, x),
            "add": lambda: call("add", ADD, x, self.random.choice(peers)),
            "bias": lambda: call("add", ADD, x, codes("int8", *self.broadcast(shape))),
            "rows": lambda: rows(x),
            "product": lambda: products(x),
            "join": lambda: relax.op.concat([x, self.random.choice(peers)], axis),
            "cut": lambda: relax.op.strided_slice(x, [axis], [shape[axis] // 2], [shape[axis]]),
            "mean": lambda: average_of(x, axis),
        }
        if len(shape) > 1:
            biases = self.broadcast([*shape[:-1], shape[-2]])
            choices["similarity"] = lambda: call("matmul", SIMILAR, x, x)
            choices["weights"] = lambda: weights(x, codes("int32", *biases) >> 16)
        return choices[self.random.choice(["reshape", "permute", *choices])]()

    def network(self) -> tvm.IRModule:
        """Up to a dozen operators on tensors of 48 elements and around."""

        def body(graph: Graph, *inputs: relax.Var) -> relax.Expr:
            tensors = list(inputs)
            for _ in range(self.random.randint(2, 12)):
                tensors.append(graph.emit(self.step(self.random.choice(tensors[-3:]), tensors)))
            return tensors[-1]

        return build([((1, 4, 2, 6), "int8"), ((48,), "int8")], body)


def average_of(x: relax.Expr, axis: int) -> relax.Expr:
    options = {"shape": TensorSpec.of(x).shape, "axes": [axis], "keepdims": True}
    config = mean_config(0.5, 3, 0.2, 1, -128, 127, "int8", **options, in_dtype="int8")
    return call("mean", config, x)


def weights(x: relax.Expr, bias: NDArray[Any]) -> relax.Expr:
    """Softmax of the similarities of all rows."""
    scores = call("matmul", SWAPPED, x, x)
    return call("softmax", softmax_config(1e-4, "int8"), scores, bias)


SEEDS = st.integers(0, 2**32)


@settings(deadline=None)
@given(SEEDS)
def test_results_do_not_change(seed: int) -> None:
    collapsed(Draw(Random(seed)).network())


@settings(deadline=None)
@given(SEEDS)
def test_results_do_not_depend_on_the_layouts(seed: int) -> None:
    """Any layouts that the operators accept will do, not only those that the search likes."""
    draw = Draw(Random(seed))
    mod = draw.network()
    network = layout.Graph(mod)
    search = LayoutSearch(network.nodes)
    for _ in range(3):
        index = draw.random.randrange(len(network.nodes))
        fitting = network.nodes[index].space.fitting(draw.layout(network.nodes[index].space.shape))
        before = list(search.layouts)
        if fitting is not None:
            search.spread(index, fitting)
        if search.total() == inf:
            search.layouts[:] = before
    assert_same(mod, layout.rebuild(mod, network, search))
