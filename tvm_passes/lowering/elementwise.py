"""Sums, products and changes of format."""

from dataclasses import dataclass

import numpy as np
from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.lowering.channels import channel_axis, channels_last
from tvm_passes.lowering.quantized import (
    Float,
    Format,
    Quantized,
    code_range,
    constant_of,
    is_call,
    is_integer_call,
    output_format,
    quantized,
)
from tvm_passes.ops.add import add_config, scaled_add_config
from tvm_passes.ops.base import TensorSpec, call
from tvm_passes.ops.elementwise import mul_config, requantize_config
from tvm_passes.rewrite import Scope


@dataclass(frozen=True)
class _Term:
    """One operand of a sum: codes or a constant, times a factor."""

    codes: Quantized | None
    constant: Float | None
    factor: Float


def lower_add(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(f * dequantize(a) + g * dequantize(b))``, the factors constant or absent."""
    if not is_integer_call(quantize, "quantize"):
        return None
    total = scope.producer(quantize.args[0])
    if not is_call(total, "relax.add"):
        return None
    terms = [_term(scope, argument) for argument in total.args]
    if any(term is None for term in terms):
        return None
    target = output_format(quantize)
    left, right = sorted(
        (term for term in terms if term is not None), key=lambda term: term.codes is None
    )
    if left.codes is None:
        return None
    shape = TensorSpec.of(total).shape
    if right.codes is None:
        right = _as_codes(right, len(shape), target)
    return _emit_add(scope, left, right, shape, target)


def lower_multiply(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(dequantize(a) * b)``; a scalar constant is a change of format."""
    if not is_integer_call(quantize, "quantize"):
        return None
    product = scope.producer(quantize.args[0])
    if not is_call(product, "relax.multiply"):
        return None
    target = output_format(quantize)
    term = _term(scope, product)
    if term is not None and term.codes is not None and term.factor.size == 1:
        return _requantize(scope, term.codes, target, float(term.factor.reshape(())))
    if term is not None and term.codes is not None:
        a, b = term.codes, _constant_codes(term.factor)
    else:
        left, right = (quantized(scope, argument) for argument in product.args)
        if left is None or right is None:
            return None
        a, b = left, right
    (scale_a, zero_a), (scale_b, zero_b) = a.scalar(target.name), b.scalar(target.name)
    config = mul_config(
        scale_a,
        zero_a,
        scale_b,
        zero_b,
        target.scale,
        target.zero_point,
        target.qmin,
        target.qmax,
        target.dtype,
        a.spec.dtype,
        b.spec.dtype,
    )
    return call("mul", config, a.codes, b.codes)


def lower_requantize(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(dequantize(x))`` changes the format, or does nothing."""
    if not is_integer_call(quantize, "quantize"):
        return None
    x = quantized(scope, quantize.args[0])
    return None if x is None else _requantize(scope, x, output_format(quantize), 1.0)


def lower_concat(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(concat(...))``: every part is brought to the common format, then joined."""
    if not is_integer_call(quantize, "quantize"):
        return None
    concat = scope.producer(quantize.args[0])
    if not is_call(concat, "relax.concat"):
        return None
    target = output_format(quantize)
    parts = []
    for part in concat.args[0].fields:
        x, constant = quantized(scope, part), constant_of(scope, part)
        if x is not None:
            codes = _requantize(scope, x, target, 1.0)
            parts.append(codes if isinstance(codes, relax.Var) else scope.emit(codes))
        elif constant is not None:
            parts.append(relax.const(_encode(constant, target)))
        else:
            return None
    return relax.op.concat(parts, int(concat.attrs.axis))


def _requantize(scope: Scope, x: Quantized, target: Format, factor: float) -> relax.Expr:
    """``x * factor`` in the target's format; ``x`` itself if its codes are the same."""
    scale, zero_point = x.scalar(target.name)
    source = (scale * factor, zero_point, x.spec.dtype)
    if source == (target.scale, target.zero_point, target.dtype):
        low, high = code_range(scope, x)
        if target.qmin <= low and high <= target.qmax:
            return x.codes
    config = requantize_config(
        scale * factor,
        zero_point,
        target.scale,
        target.zero_point,
        target.qmin,
        target.qmax,
        target.dtype,
    )
    return call("requantize", config, x.codes)


def _encode(values: Float, target: Format) -> np.ndarray:
    steps = np.floor(values.astype(np.float64) / target.scale + 0.5) + target.zero_point
    return np.clip(steps, target.qmin, target.qmax).astype(target.dtype)


def _term(scope: Scope, expr: relax.Expr) -> _Term | None:
    """``expr`` as a codes-times-constant term."""
    constant = constant_of(scope, expr)
    if constant is not None:
        return _Term(None, constant.astype(np.float64), np.ones(()))
    codes = quantized(scope, expr)
    if codes is not None:
        return _Term(codes, None, np.ones(()))
    product = scope.producer(expr)
    if not is_call(product, "relax.multiply"):
        return None
    for one, other in (product.args, product.args[::-1]):
        factor, inner = constant_of(scope, other), quantized(scope, one)
        if factor is not None and inner is not None:
            return _Term(inner, None, factor.astype(np.float64))
    return None


def _as_codes(term: _Term, rank: int, target: Format) -> _Term:
    """A constant operand in int16 codes of its own, of the sum's rank."""
    if term.constant is None:
        raise LoweringError(f"{target.name}: sum of two operands that are not quantized")
    shape = (1,) * (rank - term.constant.ndim) + term.constant.shape
    return _Term(_constant_codes(term.constant.reshape(shape)), None, np.ones(()))


def _constant_codes(values: Float) -> Quantized:
    """A constant operand in int16 codes of its own."""
    scale = max(float(np.abs(values).max()) / 32767.0, 1e-12)
    codes = np.floor(values / scale + 0.5).astype(np.int16)
    return Quantized(relax.const(codes), np.array(scale), np.array(0))


def _emit_add(
    scope: Scope, left: _Term, right: _Term, shape: tuple[int, ...], target: Format
) -> relax.Expr:
    """``add``, or ``scaled_add`` with the channels last where a factor is per channel."""
    if left.codes is None or right.codes is None:
        raise LoweringError(f"{target.name}: sum of two operands that are not quantized")
    (scale_a, zero_a), (scale_b, zero_b) = (
        term.codes.scalar(target.name) for term in (left, right) if term.codes is not None
    )
    output = (target.scale, target.zero_point, target.qmin, target.qmax, target.dtype)
    dtypes = (left.codes.spec.dtype, right.codes.spec.dtype)
    a, b = left.codes.codes, right.codes.codes
    if left.factor.size == 1 and right.factor.size == 1:
        scales = (
            scale_a * float(left.factor.reshape(())),
            scale_b * float(right.factor.reshape(())),
        )
        return call("add", add_config(scales[0], zero_a, scales[1], zero_b, *output, *dtypes), a, b)
    axis = channel_axis([left.factor.shape, right.factor.shape], len(shape))
    if axis is None:
        raise LoweringError(f"{target.name}: factors of a sum vary along more than one axis")
    config, multiplier_a, multiplier_b = scaled_add_config(
        scale_a * left.factor.ravel(),
        zero_a,
        scale_b * right.factor.ravel(),
        zero_b,
        *output,
        *dtypes,
    )
    return channels_last(
        scope,
        axis,
        [a, b],
        lambda codes: call("scaled_add", config, *codes, multiplier_a, multiplier_b),
    )
