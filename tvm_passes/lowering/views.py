"""Views do not change values: dequantize moves below them, so that they act on codes."""

import numpy as np
from tvm import relax

from tvm_passes.lowering.quantized import array_of, is_call, is_integer_call
from tvm_passes.ops.base import TensorSpec, call, config_of
from tvm_passes.ops.qdq import DequantizeConfig
from tvm_passes.rewrite import Scope

VIEWS = ("relax.reshape", "relax.permute_dims", "relax.strided_slice")


def sink_dequantize(scope: Scope, view: relax.Call) -> relax.Expr | None:
    """``view(dequantize(codes))`` becomes ``dequantize(view(codes))``.

    With a scale per channel only a permutation moves; a constant is permuted at once.
    """
    if not any(is_call(view, name) for name in VIEWS):
        return None
    source = scope.producer(view.args[0])
    if is_integer_call(source, "dequantize_log"):
        codes, *rest = source.args
        moved = relax.Call(view.op, [codes, *view.args[1:]], view.attrs)
        return relax.Call(source.op, [scope.emit(moved), *rest])
    if not is_integer_call(source, "dequantize"):
        return None
    codes, scale, zero_point, _ = source.args
    axis = config_of(source).axis
    values = array_of(codes)
    if axis >= 0:
        if not is_call(view, "relax.permute_dims"):
            return None
        axis = _axes(view).index(axis)
    if values is not None and is_call(view, "relax.permute_dims"):
        moved = relax.const(np.ascontiguousarray(values.transpose(_axes(view))))
    else:
        moved = scope.emit(relax.Call(view.op, [codes, *view.args[1:]], view.attrs))
    return call("dequantize", DequantizeConfig(axis), moved, scale, zero_point)


def _axes(view: relax.Call) -> list[int]:
    """Axes of a permutation; none given means reversed."""
    rank = len(TensorSpec.of(view.args[0]).shape)
    if view.attrs.axes is None:
        return list(range(rank))[::-1]
    return [int(axis) % rank for axis in view.attrs.axes]
