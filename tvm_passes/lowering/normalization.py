"""LayerNorm and GroupNorm(1), without affine parameters."""

from math import prod

from tvm import relax

from tvm_passes.graph.views import apply, view_of
from tvm_passes.lowering.quantized import is_integer_call, output_format, quantized
from tvm_passes.ops.base import TensorSpec, call, config_of
from tvm_passes.ops.norm import layer_norm_config
from tvm_passes.rewrite import Scope


def lower_normalize(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(normalize(dequantize(x)))`` becomes ``layer_norm`` over flattened rows."""
    if not is_integer_call(quantize, "quantize"):
        return None
    normalize = scope.producer(quantize.args[0])
    if not is_integer_call(normalize, "normalize"):
        return None
    x = quantized(scope, normalize.args[0])
    if x is None:
        return None
    target = output_format(quantize)
    scale, _ = x.scalar(target.name)
    config = config_of(normalize)
    shape = x.spec.shape
    split = len(shape) - config.axes
    length = prod(shape[split:])
    operator = layer_norm_config(
        scale=scale,
        epsilon=config.epsilon,
        out_scale=target.scale,
        out_zero_point=target.zero_point,
        qmin=target.qmin,
        qmax=target.qmax,
        dtype=target.dtype,
        length=length,
        in_dtype=x.spec.dtype,
    )
    if prod(shape[:split]) == 1:  # one row: the order of its elements does not matter
        source, view = view_of(scope, x.codes)
        flat = scope.emit(relax.op.reshape(source, (1, length)))
        row = scope.emit(call("layer_norm", operator, flat))
        result = scope.emit(relax.op.reshape(row, TensorSpec.of(source).shape))
        return result if view is None else apply(scope, result, view)
    if config.axes == 1:
        return call("layer_norm", operator, x.codes)
    flat = scope.emit(relax.op.reshape(x.codes, (*shape[:split], length)))
    return relax.op.reshape(scope.emit(call("layer_norm", operator, flat)), shape)
