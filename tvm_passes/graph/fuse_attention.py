"""Put the two products and the softmax of an attention together: ``attention``.

The operator works on the tensors that the linears produce, so that the views which bring the heads
to the front, and back, vanish too.
"""

from math import log
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.graph.layout import collapse_views
from tvm_passes.graph.layout_rules import is_pointwise
from tvm_passes.graph.view_algebra import Permute, Reshape, normalize
from tvm_passes.graph.views import apply, is_view, trace
from tvm_passes.kernels.attention_schedule import AnyConfig
from tvm_passes.lowering.attention import MASKED
from tvm_passes.lowering.quantized import array_of, is_integer_call
from tvm_passes.numerics import EXP2_BITS, INT_RANGE, FixedPoint, Rescale
from tvm_passes.ops.adalog_attention import AdaLogAttentionConfig, adalog_attention_config
from tvm_passes.ops.attention import (
    GREATEST_BIAS,
    MOST_KEYS,
    MOST_WIDTH,
    SHORT_ROW,
    AttentionConfig,
    attention_config,
)
from tvm_passes.ops.base import TensorSpec, call, config_of
from tvm_passes.ops.matmul import MatmulConfig
from tvm_passes.ops.softmax import SoftmaxConfig
from tvm_passes.ops.uniform_attention import UniformAttentionConfig, uniform_attention_config
from tvm_passes.rewrite import Scope

OPERATOR: dict[type, str] = {
    AttentionConfig: "attention",
    AdaLogAttentionConfig: "adalog_attention",
    UniformAttentionConfig: "uniform_attention",
}
HEADS_FIRST = Permute((0, 2, 1, 3))  # and back


def fuse_attention(scope: Scope, expr: relax.Call) -> relax.Expr | None:
    """Rule of the pass: ``matmul(softmax(matmul(q, k), bias), v)`` with its views.

    Between softmax and the second product there may be the table of AdaLog codes. Left as they are:
    anything else between the operators (talking heads), bias that is not constant, rows that are
    too long, and operands that would have to be moved, whatever the layouts.
    """
    if is_view(expr):
        return collapse_views(scope, expr)
    if not is_integer_call(expr, "matmul"):
        return None
    softmax, table = scope.producer(expr.args[0]), []
    if is_integer_call(softmax, "lut"):
        table = [softmax.args[1]]
        softmax = scope.producer(softmax.args[0])
    if not is_integer_call(softmax, "softmax"):
        return None
    scores = scope.producer(softmax.args[0])
    if not is_integer_call(scores, "matmul") or len(TensorSpec.of(scores).shape) != 4:
        return None
    first, second = config_of(scores), config_of(expr)
    softmax_config = config_of(softmax)
    config = _config(first, softmax_config, second, TensorSpec.of(scores))
    if config is None or bool(table) == bool(softmax_config.bits):
        return None
    q = _tokens(scope, scores.args[0], swap=False)
    k = _tokens(scope, scores.args[1], swap=not first.transpose_b)
    v = _tokens(scope, expr.args[1], swap=second.transpose_b)
    bias = [_own_steps(values, first) for values in softmax.args[1:-1]]
    if q is None or k is None or v is None or None in bias:
        return None
    fused = scope.emit(call(OPERATOR[type(config)], config, q, k, v, *table, *bias))
    batch, heads, queries, _ = TensorSpec.of(scores).shape
    width = TensorSpec.of(v).shape[-1] // heads
    split = Reshape((batch, queries, heads, width))
    view = normalize((batch, queries, heads * width), [split, HEADS_FIRST])
    return None if view is None else apply(scope, fused, view)


def _config(
    first: MatmulConfig, softmax: SoftmaxConfig, second: MatmulConfig, scores: TensorSpec
) -> AnyConfig | None:
    """The configuration of the fused operator, or None if it cannot stand for the others."""
    _, heads, _, keys = scores.shape
    most = MOST_KEYS if softmax.bits and softmax.dtype == "int16" else SHORT_ROW
    if first.dtype != "int32" or first.zero_point or second.raw or keys > most:
        return None
    try:
        if not softmax.bits:
            return _adalog_codes(heads, first, softmax, second)
        if second.zero_a != softmax.zero_point:
            return None
        if softmax.dtype == "int8":
            return _uniform_codes(heads, first, softmax, second)
        return _probabilities(heads, first, softmax, second)
    except LoweringError:
        return None


def _probabilities(
    heads: int, first: MatmulConfig, softmax: SoftmaxConfig, second: MatmulConfig
) -> AttentionConfig | None:
    """Codes of 15 bits are as good as none, so that nothing is rounded."""
    if (softmax.bits, softmax.factor, softmax.qmax) != (15, 0, 2**15 - 1):
        return None
    return attention_config(
        heads,
        _logit_scale(softmax) * _steps(first),
        _steps(second) * 2.0**softmax.bits,
        zero_q=first.zero_a,
        zero_v=second.zero_b,
        **_output(second),
    )


def _uniform_codes(
    heads: int, first: MatmulConfig, softmax: SoftmaxConfig, second: MatmulConfig
) -> UniformAttentionConfig:
    factor = softmax.factor * 2.0**-31 if softmax.factor else 1.0
    return uniform_attention_config(
        heads,
        _logit_scale(softmax) * _steps(first),
        2.0**-softmax.bits / factor,
        softmax.qmax - softmax.zero_point,
        _steps(second),
        zero_q=first.zero_a,
        zero_v=second.zero_b,
        **_output(second),
    )


def _adalog_codes(
    heads: int, first: MatmulConfig, softmax: SoftmaxConfig, second: MatmulConfig
) -> AdaLogAttentionConfig | None:
    if second.zero_a or second.zero_b:
        return None
    return adalog_attention_config(
        heads,
        _logit_scale(softmax) * _steps(first),
        _real(softmax.code_multiplier, softmax.code_shift, 0) * 2.0**EXP2_BITS,
        softmax.qmax.bit_length(),
        _steps(second),
        2.0 ** (softmax.code_offset * 2.0**-EXP2_BITS),
        zero_q=first.zero_a,
        **_output(second),
    )


class _Output(TypedDict):
    zero_point: int
    dtype: str
    codes: tuple[int, int]


def _output(product: MatmulConfig) -> _Output:
    """Format of the result, as all three configurations take it."""
    return {
        "zero_point": product.zero_point,
        "dtype": product.dtype,
        "codes": (product.qmin, product.qmax),
    }


def _logit_scale(softmax: SoftmaxConfig) -> float:
    """Real value of one step of the logits."""
    octaves = _real(softmax.multiplier, softmax.shift, softmax.left)
    return octaves * log(2.0) * 2.0 ** -(EXP2_BITS + softmax.right)


def _steps(product: MatmulConfig) -> NDArray[np.float64]:
    """Steps of the result in one of the products, [] or [H]."""
    if product.raw:
        return np.array(1.0)
    return Rescale(np.asarray(product.multiplier, np.int32), product.left).real()


def _real(multiplier: int, shift: int, left: int) -> float:
    fixed = FixedPoint(np.asarray(multiplier, np.int32), np.asarray(shift, np.int32), left)
    return float(fixed.real())


def _tokens(scope: Scope, operand: relax.Expr, swap: bool) -> relax.Expr | None:
    """An operand [B, H, N, D] as [B, N, H*D], or None if that takes more than a reshape.

    ``swap`` says that the operand is [B, H, D, N].
    """
    root, steps = trace(scope, operand)
    shape = TensorSpec.of(operand).shape
    if swap:
        steps = [*steps, Permute((0, 1, 3, 2))]
        shape = (*shape[:2], shape[3], shape[2])
    batch, heads, tokens, width = shape
    steps = [*steps, HEADS_FIRST, Reshape((batch, tokens, heads * width))]
    view = normalize(TensorSpec.of(root).shape, steps)
    if view is None or width > MOST_WIDTH or (view.moves_data and not _can_turn(scope, root)):
        return None
    return apply(scope, root, view)


def _can_turn(scope: Scope, root: relax.Expr) -> bool:
    """Whether an operator without rows made a map, which it may as well write pixel by pixel."""
    producer = scope.producer(root)
    return len(TensorSpec.of(root).shape) == 4 and is_pointwise(producer)


def _own_steps(bias: relax.Expr, scores: MatmulConfig) -> relax.Expr | None:
    """A bias in steps of the accumulators; None if it is too large, or no constant."""
    values = array_of(bias)
    if values is None:
        return None
    if not scores.raw:
        wide = np.floor(values / _steps(scores).reshape(-1, 1, 1) + 0.5)
        values = np.maximum(wide, MASKED).astype(np.int64)
        bias = relax.const(values.clip(*INT_RANGE["int32"]).astype(np.int32))
    return bias if np.abs(values.astype(np.int64)).max() <= GREATEST_BIAS else None
