"""Attention whose weights are never stored: its rows are too long for a format of theirs."""

from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.lowering.quantized import (
    Quantized,
    array_of,
    is_call,
    is_integer_call,
    output_format,
    quantized,
)
from tvm_passes.ops.attention import attention_config
from tvm_passes.ops.base import TensorSpec, call
from tvm_passes.rewrite import Scope


def lower_long_attention(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(softmax(q @ k) @ v)`` of codes, without a quantizer in between: ``attention``.

    q is [B, H, M, D], k [B, H, D, N], v [B, H, N, Dv].

    Raises:
        LoweringError: something else lies between the products, or an operand is not int8.
    """
    if not is_integer_call(quantize, "quantize"):
        return None
    values = scope.producer(quantize.args[0])
    if not is_call(values, "relax.matmul"):
        return None
    softmax = scope.producer(values.args[0])
    if not is_call(softmax, "relax.nn.softmax"):
        return None
    target = output_format(quantize)
    scores = scope.producer(softmax.args[0])
    if not is_call(scores, "relax.matmul") or len(TensorSpec.of(scores).shape) != 4:
        raise LoweringError(f"{target.name}: long attention of something that is no product")
    q, k, v = (quantized(scope, x) for x in (*scores.args, values.args[1]))
    if q is None or k is None or v is None:
        raise LoweringError(f"{target.name}: long attention of operands that are not quantized")
    (scale_q, zero_q), (scale_k, _), (scale_v, zero_v) = (x.scalar(target.name) for x in (q, k, v))
    batch, heads, queries, _ = TensorSpec.of(scores).shape
    config = attention_config(
        heads,
        scale_q * scale_k,
        scale_v / target.scale,
        zero_q=zero_q,
        zero_v=zero_v,
        zero_point=target.zero_point,
        dtype=target.dtype,
        codes=(target.qmin, target.qmax),
    )
    turned = ((q, (0, 2, 1, 3)), (k, (0, 3, 1, 2)), (v, (0, 2, 1, 3)))
    mean = scope.emit(call("attention", config, *(_tokens(scope, *item) for item in turned)))
    width = TensorSpec.of(mean).shape[-1] // heads
    split = scope.emit(relax.op.reshape(mean, (batch, queries, heads, width)))
    return relax.op.permute_dims(split, [0, 2, 1, 3])


def _tokens(scope: Scope, operand: Quantized, axes: tuple[int, ...]) -> relax.Expr:
    """An operand as [B, N, H * D]."""
    batch, tokens, heads, width = (operand.spec.shape[axis] for axis in axes)
    codes = array_of(scope.producer(operand.codes))
    shape = (batch, tokens, heads * width)
    if codes is not None:
        return relax.const(codes.transpose(axes).reshape(shape))
    turned = scope.emit(relax.op.permute_dims(operand.codes, list(axes)))
    return scope.emit(relax.op.reshape(turned, shape))
