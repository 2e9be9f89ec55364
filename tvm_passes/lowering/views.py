"""Views do not change values: dequantize moves below them, so that they act on codes."""

import numpy as np
from tvm import relax

from tvm_passes.lowering.quantized import VIEWS, array_of, is_call, is_integer_call, quantized
from tvm_passes.ops.base import TensorSpec, call, config_of
from tvm_passes.ops.qdq import DequantizeConfig
from tvm_passes.rewrite import Scope


def sink_dequantize(scope: Scope, view: relax.Call) -> relax.Expr | None:
    """``view(dequantize(codes))`` becomes ``dequantize(view(codes))``.

    With a scale per channel only a permutation moves; a constant is permuted at once. Parts of one
    format are joined as codes: the halves of a rolled map have no quantizer of their own.
    """
    if is_call(view, "relax.concat"):
        return _join(scope, view)
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


def _join(scope: Scope, concat: relax.Call) -> relax.Expr | None:
    """``concat`` of dequantized parts that share one per-tensor format."""
    sources = [scope.producer(part) for part in concat.args[0].fields]
    parts = [quantized(scope, source) for source in sources]
    formats = {
        None if part is None or part.axis >= 0 else (part.scale.item(), part.zero_point.item())
        for part in parts
    }
    dtypes = {part.spec.dtype for part in parts if part is not None}
    if None in formats or len(formats) > 1 or len(dtypes) > 1:
        return None
    codes = scope.emit(relax.op.concat([source.args[0] for source in sources], concat.attrs.axis))
    _, scale, zero_point, _ = sources[0].args
    return call("dequantize", DequantizeConfig(-1), codes, scale, zero_point)


def _axes(view: relax.Call) -> list[int]:
    """Axes of a permutation; none given means reversed."""
    rank = len(TensorSpec.of(view.args[0]).shape)
    if view.attrs.axes is None:
        return list(range(rank))[::-1]
    return [int(axis) % rank for axis in view.attrs.axes]
