"""Views do not change values: dequantize moves below them, so that they act on codes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from tvm_passes.interpret import VIEWS
from tvm_passes.lowering.quantized import (
    array_of,
    compressed,
    is_call,
    is_integer_call,
    quantized,
)
from tvm_passes.ops.base import call
from tvm_passes.ops.qdq import DequantizeConfig
from tvm_passes.rewrite import Scope


def sink_dequantize(scope: Scope, view: relax.Call) -> relax.Expr | None:
    """``view(dequantize(codes))`` becomes ``dequantize(view(codes))``.

    Scales that vary along axes are viewed like the codes. A constant is viewed at once. Parts of
    one format are joined as codes: the halves of a rolled map have no quantizer of their own.
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
    found, values = quantized(scope, source), array_of(source.args[0])
    if found is None:
        return None
    typed = scope.builder.normalize(view)
    scale, zero_point = (
        _viewed(typed, each, found.spec.shape) for each in (found.scale, found.zero_point)
    )
    if values is not None:
        moved = relax.const(np.ascontiguousarray(VIEWS[str(view.op.name)](typed, values)))
    else:
        moved = scope.emit(relax.Call(view.op, [found.codes, *view.args[1:]], view.attrs))
    arrays = scale.astype(np.float32), zero_point.astype(np.int32)
    return call("dequantize", DequantizeConfig(-1), moved, *arrays)


def _viewed(view: relax.Call, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Values that broadcast against a tensor of ``shape``, as they broadcast against its view."""
    if not values.ndim:
        return values
    return compressed(VIEWS[str(view.op.name)](view, np.broadcast_to(values, shape)))


def _join(scope: Scope, concat: relax.Call) -> relax.Expr | None:
    """``concat`` of dequantized parts that share one per-tensor format."""
    sources = [scope.producer(part) for part in concat.args[0].fields]
    parts = [quantized(scope, source) for source in sources]
    formats = {
        None
        if part is None or part.scale.ndim or part.zero_point.ndim
        else (part.scale.item(), part.zero_point.item())
        for part in parts
    }
    dtypes = {part.spec.dtype for part in parts if part is not None}
    if None in formats or len(formats) > 1 or len(dtypes) > 1:
        return None
    codes = scope.emit(relax.op.concat([source.args[0] for source in sources], concat.attrs.axis))
    _, scale, zero_point, _ = sources[0].args
    return call("dequantize", DequantizeConfig(-1), codes, scale, zero_point)
