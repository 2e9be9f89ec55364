"""Which layouts operators accept, and the shapes that they then work on."""

import numpy as np
import pytest
from tvm import relax

from tests.tvm_passes.run_kernel import codes
from tvm_passes.graph.layout_rules import Space, space_of, tensors_of, with_tensors
from tvm_passes.graph.view_algebra import Digit, Layout, Permute, Shape, normalize, row_major
from tvm_passes.lowering.quantized import array_of
from tvm_passes.ops.add import add_config, scaled_add_config
from tvm_passes.ops.base import call
from tvm_passes.ops.elementwise import requantize_config
from tvm_passes.ops.matmul import MatmulConfig
from tvm_passes.ops.norm import layer_norm_config
from tvm_passes.ops.pad import PadConfig

FORM = (-128, 127, "int8")


def variable(*shape: int) -> relax.Var:
    return relax.Var("x", relax.TensorType(shape, "int8"))


def space(expr: relax.Expr) -> Space:
    return space_of(relax.BlockBuilder().normalize(expr))


def requantize(x: relax.Expr) -> relax.Call:
    return call("requantize", requantize_config(0.5, 3, 0.7, -1, *FORM), x)


def layer_norm(x: relax.Expr, length: int) -> relax.Call:
    config = layer_norm_config(0.1, 1e-5, 0.03, 2, *FORM, length=length, in_dtype="int8")
    return call("layer_norm", config, x)


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
    config = add_config(0.5, 3, 0.25, 0, 0.8, -1, *FORM, "int8", "int8")
    broadcast = space(call("add", config, variable(6, 4), codes("int8", 4)))
    assert broadcast.operands == ((6, 4), (1, 4))
    assert broadcast.accepts(turned((6, 4), (1, 0))) and not broadcast.accepts(odd)


def test_rows_stay_innermost_in_any_order_of_their_elements() -> None:
    norm = space(layer_norm(variable(4, 5, 6), 6))
    assert norm.accepts(turned((4, 5, 6), (1, 0, 2)))
    assert not norm.accepts(turned((4, 5, 6), (0, 2, 1)))
    inside = (Digit(6, 20), Digit(1, 2), Digit(2, 3))
    assert norm.accepts(inside)
    assert norm.physical(inside, (4, 5, 6)) == (4, 5, 6)
    assert norm.physical(turned((4, 5, 6), (1, 0, 2)), (4, 5, 6)) == (5, 4, 6)


def test_the_channels_of_a_scaled_sum_keep_their_order() -> None:
    config, *multipliers = scaled_add_config(
        np.full(6, 0.5), 0, 0.25, 0, 0.8, -1, *FORM, "int8", "int8"
    )
    scaled = space(call("scaled_add", config, variable(5, 6), variable(5, 6), *multipliers))
    assert scaled.operands == ((5, 6), (5, 6), None, None)
    assert not scaled.accepts((Digit(6, 5), Digit(1, 2), Digit(2, 3)))


def test_a_joined_axis_stays_one_axis() -> None:
    joined = space(relax.op.concat([variable(1, 5), variable(1, 5)] * 2, 0))
    assert joined.accepts(turned((4, 5), (1, 0)))
    assert not joined.accepts((Digit(5, 2), Digit(1, 5), Digit(10, 2)))
    assert joined.physical(turned((4, 5), (1, 0)), (1, 5)) == (5, 1)
    assert joined.position(turned((4, 5), (1, 0)), 0) == 1


@pytest.mark.parametrize(("innermost", "taken"), [(6, "columns"), (1, "rows"), (2, "rows")])
def test_a_product_reads_columns_if_they_lie_innermost(innermost: int, taken: str) -> None:
    config = MatmulConfig(False, 0, 0, True, 0, 0, 0, 0, 0, "int32")
    product = space(call("matmul", config, variable(1, 3, 4), variable(1, 4, 6)))
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
    norm = space(layer_norm(variable(4, 5, 6), 6))
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
