"""Views in the graph: tracing chains and emitting them."""

import numpy as np
import pytest
from tvm import relax

from tests.tvm_passes.run_kernel import codes
from tvm_passes.graph.view_algebra import Digit, Permute, Reshape, row_major
from tvm_passes.graph.views import apply, is_view, relayout, reshaped, trace, view_of, view_step
from tvm_passes.interpret import interpret
from tvm_passes.ops.base import TensorSpec
from tvm_passes.rewrite import Scope

X = relax.Var("x", relax.TensorType((1, 4, 6), "int8"))


def scope_with(*views: object) -> tuple[Scope, relax.Expr]:
    """A scope in which ``views`` were applied to X, and the result."""
    scope = Scope(relax.BlockBuilder())
    with scope.builder.function("main", [X]):
        with scope.builder.dataflow():
            expr: relax.Expr = X
            for view in views:
                expr = scope.emit(view(expr))  # type: ignore[operator]
            output = scope.builder.emit_output(expr)
        scope.builder.emit_func_output(output)
    return scope, expr


def test_a_chain_is_traced_to_its_source() -> None:
    scope, expr = scope_with(
        lambda x: relax.op.permute_dims(x, [0, 2, 1]), lambda x: relax.op.reshape(x, (6, 4))
    )
    root, steps = trace(scope, expr)
    assert root.same_as(X) and steps == [Permute((0, 2, 1)), Reshape((6, 4))]


def test_negative_and_omitted_axes() -> None:
    builder = relax.BlockBuilder()
    turned = builder.normalize(relax.op.permute_dims(X, [0, -1, -2]))
    assert is_view(turned) and view_step(turned) == Permute((0, 2, 1))
    assert view_step(builder.normalize(relax.op.permute_dims(X))) == Permute((2, 1, 0))


def test_no_chain_and_no_normal_form_give_the_expression_itself() -> None:
    scope, expr = scope_with()
    assert view_of(scope, expr)[1] is None and view_of(scope, expr)[0].same_as(X)
    scope, expr = scope_with(
        lambda x: relax.op.permute_dims(x, [0, 2, 1]),
        lambda x: relax.op.reshape(x, (1, 8, 3)),
        lambda x: relax.op.permute_dims(x, [0, 2, 1]),
    )
    root, view = view_of(scope, expr)
    assert root.same_as(expr) and view is None


def test_a_view_is_emitted_with_as_few_operators_as_it_needs() -> None:
    scope, expr = scope_with(
        lambda x: relax.op.reshape(x, (2, 2, 6)),
        lambda x: relax.op.permute_dims(x, [2, 0, 1]),
        lambda x: relax.op.reshape(x, (6, 4)),
    )
    root, view = view_of(scope, expr)
    assert view is not None
    fresh = Scope(relax.BlockBuilder())
    with fresh.builder.function("main", [X]):
        with fresh.builder.dataflow():
            output = fresh.builder.emit_output(apply(fresh, root, view))
        fresh.builder.emit_func_output(output)
    assert [str(call.op.name) for call in fresh.bindings.values()] == [
        "relax.reshape",
        "relax.permute_dims",
    ]
    assert TensorSpec.of(output) == TensorSpec((6, 4), "int8")


def test_memory_changes_its_layout_by_one_permutation() -> None:
    scope, source = scope_with(lambda x: relax.op.reshape(x, (24,)))
    have, want = row_major((4, 6)), (Digit(1, 6), Digit(6, 4))
    assert relayout(scope, source, have, have).same_as(source)
    with pytest.raises(ValueError, match="no permutation"):
        relayout(scope, source, (Digit(1, 4), Digit(4, 6)), (Digit(1, 3), Digit(3, 8)))
    fresh = Scope(relax.BlockBuilder())
    with fresh.builder.function("main", [X]):
        with fresh.builder.dataflow():
            turned = relayout(fresh, X, have, want)
            output = fresh.builder.emit_output(reshaped(fresh, turned, (6, 4)))
        fresh.builder.emit_func_output(output)
    x = codes("int8", 1, 4, 6)
    np.testing.assert_array_equal(interpret(fresh.builder.get(), x), x[0].T)
