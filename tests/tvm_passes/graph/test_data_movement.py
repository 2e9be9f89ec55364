"""What only moves data is recognised, counted, and remembered from before the layouts."""

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

from tests.tvm_passes.graph.networks import REQUANTIZE
from tests.tvm_passes.modules import Graph, build
from tvm_passes.graph.data_movement import (
    MOVES,
    Movement,
    Moves,
    count_moves,
    movement,
    moves_data,
    note_moves,
)
from tvm_passes.graph.layout import assign_layouts
from tvm_passes.ops.base import call
from tvm_passes.ops.pad import PadConfig


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


def test_moves_are_counted_with_the_bytes_they_write() -> None:
    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        flat = emit(relax.op.reshape(x, (6, 8)))
        turned = emit(relax.op.permute_dims(flat, [1, 0]))
        return emit(relax.op.concat([turned, turned], 0))

    assert count_moves(build([((2, 3, 8), "int16")], lambda g, x: body(g.emit, x))) == Moves(2, 288)


def there_and_back(graph: Graph, x: relax.Var) -> relax.Expr:
    """A permutation and its inverse around an operator that does not mind, then a slice."""
    turned = graph.emit(relax.op.permute_dims(x, [0, 2, 1]))
    same = graph.emit(call("requantize", REQUANTIZE, turned))
    back = graph.emit(relax.op.permute_dims(same, [0, 2, 1]))
    return graph.emit(relax.op.strided_slice(back, [1], [0], [1]))


def test_what_layouts_spare_is_known_afterwards() -> None:
    before = build([((1, 4, 6), "int8")], there_and_back)
    after = assign_layouts(note_moves(before))
    assert movement(after) == Movement(before=Moves(3, 24 + 24 + 6), after=Moves(1, 6))


def test_what_was_noted_is_stored_with_the_module() -> None:
    noted = note_moves(build([((1, 4, 6), "int8")], there_and_back))
    assert movement(tvm.ir.load_json(tvm.ir.save_json(noted))) == movement(noted)


def test_a_note_changes_neither_the_computation_nor_the_module_that_it_is_taken_of() -> None:
    before = build([((1, 4, 6), "int8")], there_and_back)
    noted = note_moves(before)
    tvm.ir.assert_structural_equal(noted["main"].body, before["main"].body, map_free_vars=True)
    assert MOVES in noted["main"].attrs and MOVES not in before["main"].attrs
