"""Attention: products of two computed tensors, and softmax on their accumulators."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.lowering.adalog import log_scale, operand
from tvm_passes.lowering.quantized import (
    Float,
    Format,
    Quantized,
    array_of,
    code_range,
    constant_of,
    is_call,
    is_integer_call,
    origin,
    output_format,
    quantized,
)
from tvm_passes.ops.base import TensorSpec, call, config_of
from tvm_passes.ops.matmul import MatmulConfig
from tvm_passes.ops.softmax import SoftmaxConfig, adalog_softmax_config, softmax_config
from tvm_passes.rewrite import Scope

PROBABILITY_SUM = 2**15  # codes of one int16 softmax row add up to about this
MASKED = -(2**24)  # a mask further below zero than this makes no difference


@dataclass(frozen=True)
class _Operands:
    a: Quantized
    b: Quantized

    @property
    def scale(self) -> float:
        return float(self.a.scale) * float(self.b.scale)


def lower_matmul(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(matmul(dequantize(a), dequantize(b)))`` becomes an integer ``matmul``."""
    if not is_integer_call(quantize, "quantize"):
        return None
    product = scope.producer(quantize.args[0])
    target = output_format(quantize)
    operands = _match(scope, product, target.name)
    return None if operands is None else _emit_matmul(scope, operands, target, target.name)


def lower_softmax(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """Softmax of int32 accumulators (constants added to them included) or of codes."""
    uniform = is_integer_call(quantize, "quantize")
    if not uniform and not is_integer_call(quantize, "quantize_log"):
        return None
    softmax = scope.producer(quantize.args[0])
    if not is_call(softmax, "relax.nn.softmax"):
        return None
    name = config_of(quantize).name
    rank = len(TensorSpec.of(softmax).shape)
    if int(softmax.attrs.axis) % rank != rank - 1:
        raise LoweringError(f"{name}: softmax over an axis that is not the last")
    logits, scale, bias = _logits(scope, softmax.args[0], rank, name)
    arguments = [logits] if bias is None else [logits, bias]
    return call("softmax", _softmax_config(quantize, scale, name), *arguments)


def _softmax_config(quantize: relax.Call, scale: float, name: str) -> SoftmaxConfig:
    if is_integer_call(quantize, "quantize_log"):
        config = config_of(quantize)
        if config.shift:
            raise LoweringError(f"{name}: shifted AdaLog codes of a softmax")
        return adalog_softmax_config(scale, config.q, config.bits, log_scale(quantize))
    target = output_format(quantize)
    config = softmax_config(scale=scale, dtype=target.dtype)
    expected = {"int16": (2.0**-15, 0), "int8": (2.0**-8, -128)}.get(target.dtype)
    if expected != (target.scale, target.zero_point):
        raise LoweringError(f"{name}: softmax output must have scale and zero point {expected}")
    return config


def _logits(
    scope: Scope, expr: relax.Expr, rank: int, name: str
) -> tuple[relax.Expr, float, NDArray[np.int32] | None]:
    """Integer logits, their scale, and the constant to add to them (bias tables, masks)."""
    total: Float | None = None
    producer = scope.producer(expr)
    while is_call(producer, "relax.add"):
        constant = constant_of(scope, producer.args[1])
        if constant is None:
            break
        total = constant.astype(np.float64) + (0.0 if total is None else total)
        expr, producer = producer.args[0], scope.producer(producer.args[0])
    codes = quantized(scope, expr)
    if codes is not None:
        logits, (scale, _) = codes.codes, codes.scalar(name)
    else:
        operands = _match(scope, producer, name)
        if operands is None:
            raise LoweringError(f"{name}: softmax of something that is no product and no codes")
        scale = operands.scale
        logits = scope.emit(_emit_matmul(scope, operands, None, name))
    if total is None:
        return logits, scale, None
    steps = np.maximum(np.floor(total / scale + 0.5), MASKED).astype(np.int32)
    return logits, scale, steps.reshape((1,) * (rank - steps.ndim) + steps.shape)


def _match(scope: Scope, product: relax.Expr, name: str) -> _Operands | None:
    if not is_call(product, "relax.matmul"):
        return None
    a, b = (operand(scope, argument) for argument in product.args)
    if a is None or b is None:
        return None
    for side in (a, b):
        side.scalar(name)
    return _Operands(a, b)


def _emit_matmul(scope: Scope, operands: _Operands, target: Format | None, name: str) -> relax.Call:
    """The integer product; raw int32 accumulators without ``target``."""
    a, b = operands.a, operands.b
    if b.spec.dtype != "int8":
        raise LoweringError(f"{name}: the second operand of a product must be int8")
    multiplier = None if target is None else target.multiplier(operands.scale)
    bound = _bound(scope, a, b) * 2.0 ** (multiplier.left if multiplier else 0)
    if bound >= 2.0**31:
        raise LoweringError(
            f"{name}: sums over {a.spec.shape[-1]} products may reach 2^{np.log2(bound):.1f} "
            "and overflow int32"
        )
    config = MatmulConfig(
        transpose_b=False,
        zero_a=int(a.zero_point),
        zero_b=int(b.zero_point),
        raw=multiplier is None,
        left=multiplier.left if multiplier else 0,
        multiplier=int(multiplier.multiplier) if multiplier else 0,
        zero_point=target.zero_point if target else 0,
        qmin=target.qmin if target else 0,
        qmax=target.qmax if target else 0,
        dtype=target.dtype if target else "int32",
    )
    return call("matmul", config, a.codes, b.codes)


def _bound(scope: Scope, a: Quantized, b: Quantized) -> float:
    """Greatest absolute accumulator; rows of a softmax are known to sum to one."""
    depth = a.spec.shape[-1]
    reach_a, reach_b = _reach(scope, a), _reach(scope, b)
    return min(float(depth) * reach_a, _probabilities(scope, a) + depth) * reach_b


def _probabilities(scope: Scope, a: Quantized) -> float:
    """What the codes of a row of ``a`` add up to before rounding, if they are probabilities."""
    producer = origin(scope, a.codes)
    if is_integer_call(producer, "softmax") and a.spec.dtype == "int16":
        return PROBABILITY_SUM
    if is_integer_call(producer, "lut"):
        softmax, table = origin(scope, producer.args[0]), array_of(producer.args[1])
        if is_integer_call(softmax, "softmax") and table is not None:
            base = float(table[0]) / max(float(table[1]), 1.0)  # of AdaLog; codes are rounded
            return 1.02 * base**0.5 / float(a.scale)
    return np.inf


def _reach(scope: Scope, operand: Quantized) -> int:
    low, high = code_range(scope, operand)
    zero = int(operand.zero_point)
    return max(high - zero, zero - low)
