"""Attention: products of two computed tensors, and softmax on their accumulators."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.lowering.adalog import operand
from tvm_passes.lowering.quantized import (
    Float,
    Format,
    Quantized,
    array_of,
    code_range,
    constant_of,
    is_call,
    is_integer_call,
    one_scale,
    origin,
    output_format,
    quantized,
)
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import TensorSpec, call, config_of
from tvm_passes.ops.heads import per_head
from tvm_passes.ops.matmul import MatmulConfig
from tvm_passes.ops.softmax import (
    SoftmaxConfig,
    adalog_softmax_config,
    uniform_softmax_config,
)
from tvm_passes.rewrite import Scope

MASKED = -(2**24)  # accumulators: a mask further below zero than this makes no difference


@dataclass(frozen=True)
class _Logits:
    """Integer logits with one scale.

    Attributes:
        codes: int32 accumulators, or codes.
        scale: real value of a step.
        spread: steps of the coarsest head.
    """

    codes: relax.Expr
    scale: float
    spread: float = 1.0

    def steps(self, values: Float, rank: int) -> NDArray[np.int32]:
        """Real values to be added to them, in their steps and with their rank."""
        low, high = INT_RANGE["int32"]
        least = max(MASKED * self.spread, low)
        steps = np.clip(np.floor(values / self.scale + 0.5), least, high).astype(np.int32)
        return steps.reshape((1,) * (rank - steps.ndim) + steps.shape)


@dataclass(frozen=True)
class _Operands:
    """Operands of a product.

    Attributes:
        a: the first.
        b: the second.
        scale: of their products: one, or [H] along the last leading axis.
    """

    a: Quantized
    b: Quantized
    scale: Float


def lower_matmul(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(matmul(dequantize(a), dequantize(b)))`` becomes an integer ``matmul``."""
    if not is_integer_call(quantize, "quantize"):
        return None
    product = scope.producer(quantize.args[0])
    target = output_format(quantize)
    operands = _match(scope, product, target.name)
    if operands is None:
        return None
    return _emit_matmul(scope, operands, target, target.name)


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
    total, added = _sum(scope, softmax.args[0])
    logits = _logits(scope, total, name)
    arguments = [] if added is None else [logits.steps(added, rank)]
    return call("softmax", _softmax_config(quantize, logits.scale, name), logits.codes, *arguments)


def _softmax_config(quantize: relax.Call, scale: float, name: str) -> SoftmaxConfig:
    if is_integer_call(quantize, "quantize_log"):
        config = config_of(quantize)
        if config.shift:
            raise LoweringError(f"{name}: shifted AdaLog codes of a softmax")
        return adalog_softmax_config(scale, config.q, config.r, config.bits, one_scale(quantize))
    target = output_format(quantize)
    if target.qmin > target.zero_point:
        raise LoweringError(f"{name}: softmax to codes from {target.qmin}, without their zero")
    output = target.scale, target.zero_point, target.qmax, target.dtype
    return uniform_softmax_config(scale, *output)


def _sum(scope: Scope, expr: relax.Expr) -> tuple[relax.Expr, Float | None]:
    """What softmax is taken of, without the constants (bias tables, masks), and their sum."""
    added: Float | None = None
    producer = scope.producer(expr)
    while is_call(producer, "relax.add"):
        constant = constant_of(scope, producer.args[1])
        if constant is None:
            break
        added = constant.astype(np.float64) + (0.0 if added is None else added)
        expr, producer = producer.args[0], scope.producer(producer.args[0])
    return expr, added


def _logits(scope: Scope, expr: relax.Expr, name: str) -> _Logits:
    """Codes, or the accumulators of a product.

    Where heads have scales of their own, accumulators are brought to that of the finest, or to the
    finest that int32 can hold: that is at most ``2^-29`` of the greatest accumulator.
    """
    codes = quantized(scope, expr)
    if codes is not None:
        return _Logits(codes.codes, codes.scalar(name)[0])
    operands = _match(scope, scope.producer(expr), name)
    if operands is None:
        raise LoweringError(f"{name}: softmax of something that is no product and no codes")
    if not operands.scale.ndim:
        raw = _emit_matmul(scope, operands, None, name)
        return _Logits(scope.emit(raw), float(operands.scale))
    finest, coarsest = float(operands.scale.min()), float(operands.scale.max())
    scale = max(finest, coarsest * _bound(scope, operands.a, operands.b) * 2.0**-29)
    target = Format(scale, 0, *INT_RANGE["int32"], "int32", name)
    common = _emit_matmul(scope, operands, target, name)
    return _Logits(scope.emit(common), scale, coarsest / scale)


def _match(scope: Scope, product: relax.Expr, name: str) -> _Operands | None:
    if not is_call(product, "relax.matmul"):
        return None
    a, b = (operand(scope, argument) for argument in product.args)
    if a is None or b is None:
        return None
    return _Operands(a, b, _scale(a, name) * _scale(b, name))


def _scale(side: Quantized, name: str) -> Float:
    """The scale of an operand, or those of its heads."""
    rank = len(side.spec.shape)
    if side.offset or rank < 3:
        return np.array(side.scalar(name)[0])
    return side.along(rank - 3, name)[0]


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
        multiplier=per_head(multiplier.multiplier.ravel()) if multiplier else 0,
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
    if is_integer_call(producer, "softmax") and config_of(producer).bits:
        return 1.0 / float(a.scale)
    if is_integer_call(producer, "twin"):
        softmax, config = origin(scope, producer.args[0]), config_of(producer)
        if is_integer_call(softmax, "softmax"):
            # codes of both operators are rounded
            coarse = 2.0 ** (config.ratio_bits - 1) / (config.codes - 1)
            fine = a.spec.shape[-1] * 2.0**-16
            return (1.0 + fine) * (1.0 + coarse) / float(a.scale)
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
