"""Make reshapes and permutations vanish.

Chains of views collapse to their normal form, views sink below operators that work element by
element until they meet their inverse, and a matmul reads its second operand in the order in which
it lies. What remains really moves data.
"""

from dataclasses import replace

import numpy as np
from tvm import relax

from tvm_passes.graph.view_algebra import Permute, View, as_permutation, normalize
from tvm_passes.graph.views import apply, is_view, trace, view_of, view_step
from tvm_passes.lowering.quantized import array_of, is_call, is_integer_call
from tvm_passes.ops.base import TensorSpec, call, config_of, operator_of
from tvm_passes.rewrite import Scope

UNARY = frozenset({"lut", "pwl", "pwl8", "requantize", "adalog_quantize"})
BINARY = frozenset({"add", "mul"})


def collapse_views(scope: Scope, expr: relax.Call) -> relax.Expr | None:
    """Rule of the layout pass; see the module."""
    if is_view(expr):
        return _collapse(scope, expr)
    operator = operator_of(expr)
    if operator is None:
        return _sink_concat(scope, expr) if is_call(expr, "relax.concat") else None
    if operator.name in UNARY:
        return _sink_unary(scope, expr)
    if operator.name in BINARY:
        return _sink_binary(scope, expr)
    if operator.name == "matmul":
        return _orient(scope, expr)
    if operator.name == "mean":
        return _sink_mean(scope, expr)
    return None


def _collapse(scope: Scope, expr: relax.Call) -> relax.Expr | None:
    root, steps = trace(scope, expr.args[0])
    view = normalize(TensorSpec.of(root).shape, [*steps, view_step(scope.builder.normalize(expr))])
    return None if view is None else apply(scope, root, view)


def _sink_unary(scope: Scope, expr: relax.Call) -> relax.Expr | None:
    source, *rest = expr.args
    root, view = view_of(scope, source)
    if view is None:
        return None
    return apply(scope, scope.emit(relax.Call(expr.op, [root, *rest])), view)


def _sink_binary(scope: Scope, expr: relax.Call) -> relax.Expr | None:
    """Sink a view that both operands share; a constant operand is brought before the view."""
    (left, left_view), (right, right_view) = (view_of(scope, item) for item in expr.args[:2])
    shape = TensorSpec.of(left).shape
    view = left_view
    if view is None:
        return None
    values = array_of(right)
    if values is not None:
        if values.shape != view.shape:
            return None
        right = relax.const(_rearrange(values, view.inverse(shape)))
    elif right_view != view or TensorSpec.of(right).shape != shape:
        return None
    return apply(scope, scope.emit(relax.Call(expr.op, [left, right, *expr.args[2:]])), view)


def _rearrange(values: np.ndarray, view: View) -> np.ndarray:
    return np.ascontiguousarray(values.reshape(view.split).transpose(view.axes).reshape(view.shape))


def _sink_concat(scope: Scope, expr: relax.Call) -> relax.Expr | None:
    """Join before a permutation that all parts share."""
    parts = list(expr.args[0].fields)
    views = [view_of(scope, part) for part in parts]
    sources = [TensorSpec.of(root).shape for root, _ in views]
    orders = {
        as_permutation(source, view) if view else None
        for source, (_, view) in zip(sources, views, strict=True)
    }
    order = orders.pop()
    if orders or order is None:
        return None
    axis = order[int(expr.attrs.axis)]
    joined = scope.emit(relax.op.concat([root for root, _ in views], axis))
    return _collapse(scope, relax.op.permute_dims(joined, list(order)))


def _sink_mean(scope: Scope, expr: relax.Call) -> relax.Expr | None:
    """Average over the permuted axes; what is left must keep its order."""
    root, view = view_of(scope, expr.args[0])
    order = as_permutation(TensorSpec.of(root).shape, view) if view else None
    if order is None:
        return None
    config = config_of(expr)
    axes = tuple(sorted(order[axis % len(order)] for axis in config.axes))
    mean = call("mean", replace(config, axes=axes), root)
    if config.keepdims:
        return _collapse(scope, relax.op.permute_dims(scope.emit(mean), list(order)))
    left = [axis for axis in order if axis not in axes]
    return mean if left == sorted(left) else None


def _orient(scope: Scope, expr: relax.Call) -> relax.Expr | None:
    """Read b transposed where that leaves its innermost axis in place."""
    a, b, _ = expr.args
    root, view = view_of(scope, b)
    if view is None or _keeps_rows(view) or len(view.shape) < 2:
        return None
    rank = len(view.shape)
    swap = Permute((*range(rank - 2), rank - 1, rank - 2))
    _, steps = trace(scope, b)
    flipped = normalize(TensorSpec.of(root).shape, [*steps, swap])
    if flipped is None or not _keeps_rows(flipped):
        return None
    config = config_of(expr)
    flipped_config = replace(config, transpose_b=not config.transpose_b)
    return call("matmul", flipped_config, a, apply(scope, root, flipped))


def _keeps_rows(view: View) -> bool:
    """Whether the innermost factor stays innermost."""
    return not view.axes or view.axes[-1] == len(view.axes) - 1


def moves_data(expr: relax.Expr) -> bool:
    """Whether ``expr`` is an operator that only moves data."""
    if is_call(expr, "relax.permute_dims"):
        view = normalize(TensorSpec.of(expr.args[0]).shape, [view_step(expr)])
        return view is not None and view.moves_data
    return (
        is_call(expr, "relax.concat")
        or is_call(expr, "relax.strided_slice")
        or is_integer_call(expr, "pad")
    )
