"""Which layouts operators accept, the shapes that they then work on, and what that spares."""

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.tvm_passes.graph.networks import (
    ADD,
    RAW,
    REQUANTIZE,
    TO_NCHW,
    TO_NHWC,
    collapsed,
    mean_of,
    module,
    movements,
    products,
    rows,
)
from tests.tvm_passes.modules import configs, operators
from tests.tvm_passes.run_kernel import codes
from tvm_passes.graph.data_movement import moves_data
from tvm_passes.graph.layout_rules import Space, space_of, tensors_of, with_tensors
from tvm_passes.graph.view_algebra import Digit, Layout, Permute, Shape, normalize, row_major
from tvm_passes.lowering.quantized import array_of
from tvm_passes.ops.add import scaled_add_config
from tvm_passes.ops.base import call
from tvm_passes.ops.channels import requantize_channels_config as exact
from tvm_passes.ops.channels import scale_channels_config as words
from tvm_passes.ops.pad import PadConfig
from tvm_passes.ops.pointwise import LutConfig
from tvm_passes.rewrite import main_bindings


def variable(*shape: int) -> relax.Var:
    return relax.Var("x", relax.TensorType(shape, "int8"))


def space(expr: relax.Expr) -> Space:
    return space_of(relax.BlockBuilder().normalize(expr))


def requantize(x: relax.Expr) -> relax.Call:
    return call("requantize", REQUANTIZE, x)


def turned(shape: Shape, axes: tuple[int, ...]) -> Layout:
    """The layout of a tensor of ``shape`` that lies in memory in the order ``axes``."""
    memory = tuple(shape[axis] for axis in axes)
    back = tuple(axes.index(axis) for axis in range(len(axes)))
    view = normalize(memory, [Permute(back)])
    assert view is not None
    return view.layout


def test_elements_come_in_any_order() -> None:
    odd = (Digit(1, 3), Digit(3, 8))  # begins within rows of 4
    assert space(requantize(variable(4, 6))).accepts(turned((4, 6), (1, 0)))
    assert space(requantize(variable(4, 6))).accepts(odd)
    broadcast = space(call("add", ADD, variable(6, 4), codes("int8", 4)))
    assert broadcast.operands == ((6, 4), (1, 4))
    assert broadcast.accepts(turned((6, 4), (1, 0))) and not broadcast.accepts(odd)


def test_rows_stay_innermost_in_any_order_of_their_elements() -> None:
    norm = space(rows(variable(4, 5, 6)))
    assert norm.accepts(turned((4, 5, 6), (1, 0, 2)))
    assert not norm.accepts(turned((4, 5, 6), (0, 2, 1)))
    inside = (Digit(6, 20), Digit(1, 2), Digit(2, 3))
    assert norm.accepts(inside)
    assert norm.physical(inside, (4, 5, 6)) == (4, 5, 6)
    assert norm.physical(turned((4, 5, 6), (1, 0, 2)), (4, 5, 6)) == (5, 4, 6)


def test_the_channels_of_a_scaled_sum_keep_their_order() -> None:
    config, *multipliers = scaled_add_config(
        np.full(6, 0.5), 0, 0.25, 0, 0.8, -1, -128, 127, "int8", "int8", "int8"
    )
    scaled = space(call("scaled_add", config, variable(5, 6), variable(5, 6), *multipliers))
    assert scaled.operands == ((5, 6), (5, 6), None, None)
    assert not scaled.accepts((Digit(6, 5), Digit(1, 2), Digit(2, 3)))


def test_factors_of_channels_stay_on_the_last_axis() -> None:
    config, multiplier, _ = words(np.full(6, 0.5), "int8", 0, 0, -128, 127, "int8")
    scaled = space(call("scale_channels", config, variable(5, 6), multiplier))
    assert scaled.operands == ((5, 6), None)
    assert not scaled.accepts(turned((5, 6), (1, 0)))


@pytest.mark.parametrize("name", ["scale_channels", "requantize_channels"])
def test_channels_first_in_the_graph_are_channels_last_in_memory(name: str) -> None:
    form = np.linspace(0.2, 0.4, 6), "int8", 0, 0, -128, 127, "int8"
    config, *factors = words(*form)[:2] if name == "scale_channels" else exact(*form)

    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        y = emit(relax.op.permute_dims(emit(relax.op.permute_dims(x, TO_NCHW)), TO_NHWC))
        y = emit(relax.op.permute_dims(emit(call(name, config, y, *factors)), TO_NCHW))
        return emit(relax.op.permute_dims(y, TO_NHWC))

    after = collapsed(module([(1, 4, 5, 6)], body))
    assert operators(after) == [name]


def test_a_joined_axis_stays_one_axis() -> None:
    joined = space(relax.op.concat([variable(1, 5), variable(1, 5)] * 2, 0))
    assert joined.accepts(turned((4, 5), (1, 0)))
    assert not joined.accepts((Digit(5, 2), Digit(1, 5), Digit(10, 2)))
    assert joined.physical(turned((4, 5), (1, 0)), (1, 5)) == (5, 1)
    assert joined.position(turned((4, 5), (1, 0)), 0) == 1


@pytest.mark.parametrize(("innermost", "taken"), [(6, "columns"), (1, "rows"), (2, "rows")])
def test_a_product_reads_columns_if_they_lie_innermost(innermost: int, taken: str) -> None:
    product = space(call("matmul", RAW, variable(1, 3, 4), variable(1, 4, 6)))
    columns = (Digit(1, 6), Digit(6, 4))
    layout = (Digit(12, 2), Digit(innermost, 2))
    assert product.fitting(layout) == {"columns": columns, "rows": row_major((4, 6))}[taken]
    assert product.physical(columns, (1, 4, 6)) == (1, 6, 4)


def test_unknown_operators_are_rigid() -> None:
    padded = space(call("pad", PadConfig((1, 1), (1, 1), 0), variable(1, 4, 5, 6)))
    assert padded.operands == (None,) and padded.result is None
    assert padded.shape == ()  # the only layout of which is its own


def test_memory_of_any_shape_will_do_where_no_axis_is_told_apart() -> None:
    assert space(requantize(variable(4, 6))).works_on((24,))
    norm = space(rows(variable(4, 5, 6)))
    assert norm.works_on((20, 6)) and not norm.works_on((120,))
    assert not space(relax.op.concat([variable(4, 6)], 0)).works_on((24,))


def test_tensors_are_found_in_tuples_and_replaced() -> None:
    x, y, z = variable(4, 6), variable(4, 6), relax.const(np.zeros((1, 6), np.int8))
    joined = relax.BlockBuilder().normalize(relax.op.concat([x, z], 0))
    assert [tensor.same_as(other) for tensor, other in zip(tensors_of(joined), (x, z), strict=True)]
    fresh = with_tensors(joined, [y, z])
    assert fresh.args[0].fields[0].same_as(y) and int(fresh.attrs.axis) == 0
    cut = relax.BlockBuilder().normalize(relax.op.strided_slice(x, [1], [2], [4]))
    assert len(tensors_of(cut)) == 1 and array_of(tensors_of(joined)[1]) is not None


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
        return emit(mean_of(emit(relax.op.permute_dims(x, order)), axes, keepdims))

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
