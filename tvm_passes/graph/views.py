"""Views in the graph: tracing a chain to its source, and emitting one."""

from tvm import relax

from tvm_passes.graph.moves import permuted_axes
from tvm_passes.graph.view_algebra import (
    Layout,
    Permute,
    Reshape,
    Shape,
    Step,
    View,
    normalize,
    row_major,
    transposition,
)
from tvm_passes.lowering.quantized import is_call
from tvm_passes.ops.base import TensorSpec
from tvm_passes.rewrite import Scope


def is_view(expr: relax.Expr) -> bool:
    """Whether ``expr`` is a reshape or a permutation."""
    return is_call(expr, "relax.reshape") or is_call(expr, "relax.permute_dims")


def view_step(view: relax.Call) -> Step:
    """One reshape or permutation as a step of a chain."""
    if is_call(view, "relax.reshape"):
        return Reshape(TensorSpec.of(view).shape)
    return Permute(permuted_axes(view))


def trace(scope: Scope, expr: relax.Expr) -> tuple[relax.Expr, list[Step]]:
    """The tensor under a chain of views, and the chain."""
    steps: list[Step] = []
    producer = scope.producer(expr)
    while is_view(producer):
        steps.append(view_step(producer))
        expr = producer.args[0]
        producer = scope.producer(expr)
    return expr, steps[::-1]


def view_of(scope: Scope, expr: relax.Expr) -> tuple[relax.Expr, View | None]:
    """The source under a chain of views and what the chain does.

    Where there is no chain, or it takes more than one permutation: ``expr`` itself and None.
    """
    root, steps = trace(scope, expr)
    view = normalize(TensorSpec.of(root).shape, steps) if steps else None
    return (expr, None) if view is None else (root, view)


def apply(scope: Scope, source: relax.Expr, view: View) -> relax.Expr:
    """Emit ``view`` of ``source`` with as few operators as it needs; may be ``source``."""
    lying = relayout(scope, source, view.layout, row_major(view.shape))
    return reshaped(scope, lying, view.shape)


def relayout(scope: Scope, memory: relax.Expr, have: Layout, want: Layout) -> relax.Expr:
    """Bring a tensor from one layout to another, which one permutation must be able to do."""
    if have == want:
        return memory
    turn = transposition(have, want)
    if turn is None:
        raise ValueError(f"no permutation leads from {have} to {want}")
    shape, axes = turn
    return scope.emit(relax.op.permute_dims(reshaped(scope, memory, shape), list(axes)))


def reshaped(scope: Scope, memory: relax.Expr, shape: Shape) -> relax.Expr:
    """The same memory in another shape: at most one reshape of what was computed."""
    producer = scope.producer(memory)
    if is_call(producer, "relax.reshape"):
        memory = producer.args[0]
    if TensorSpec.of(memory).shape == shape:
        return memory
    return scope.emit(relax.op.reshape(memory, shape))
