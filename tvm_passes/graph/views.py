"""Views in the graph: tracing a chain to its source, and emitting one."""

from tvm import relax

from tvm_passes.graph.view_algebra import Permute, Reshape, View, normalize
from tvm_passes.lowering.quantized import is_call
from tvm_passes.ops.base import TensorSpec
from tvm_passes.rewrite import Scope


def is_view(expr: relax.Expr) -> bool:
    """Whether ``expr`` is a reshape or a permutation."""
    return is_call(expr, "relax.reshape") or is_call(expr, "relax.permute_dims")


def trace(scope: Scope, expr: relax.Expr) -> tuple[relax.Expr, list[Reshape | Permute]]:
    """The tensor under a chain of views, and the chain."""
    steps: list[Reshape | Permute] = []
    producer = scope.producer(expr)
    while is_view(producer):
        steps.append(view_step(producer))
        expr = producer.args[0]
        producer = scope.producer(expr)
    return expr, steps[::-1]


def view_of(scope: Scope, expr: relax.Expr) -> tuple[relax.Expr, View | None]:
    """The source under a chain of views and the chain's normal form.

    Where there is no chain, or it has no normal form: ``expr`` itself and None.
    """
    root, steps = trace(scope, expr)
    view = normalize(TensorSpec.of(root).shape, steps) if steps else None
    return (expr, None) if view is None else (root, view)


def apply(scope: Scope, source: relax.Expr, view: View) -> relax.Expr:
    """Emit ``view`` of ``source`` with as few operators as it needs; may be ``source``."""
    result = source
    for step in view.steps(TensorSpec.of(source).shape):
        if isinstance(step, Reshape):
            result = scope.emit(relax.op.reshape(result, step.shape))
        else:
            result = scope.emit(relax.op.permute_dims(result, list(step.axes)))
    return result


def view_step(view: relax.Call) -> Reshape | Permute:
    """One reshape or permutation as a step of a chain."""
    spec = TensorSpec.of(view)
    if is_call(view, "relax.reshape"):
        return Reshape(spec.shape)
    rank = len(spec.shape)
    axes = view.attrs.axes
    return Permute(
        tuple(range(rank))[::-1] if axes is None else tuple(int(axis) % rank for axis in axes)
    )
