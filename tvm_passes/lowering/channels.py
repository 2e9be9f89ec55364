"""A factor per channel behind an activation, a normalization or codes.

Such factors bring channels of very different range to one format before a product of 8-bit codes.
The function is evaluated to codes that are finer than any channel needs, then every channel is
rounded to the output. A code is at most ``BOUND`` output steps from the exact value of the input's
codes, half a step being the rounding itself: of the ways to get there, cheapest first, the first
one is taken whose bound, computed over every input and factor, is that small.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from tvm import relax

from tvm_passes.lowering.fine_codes import FineCodes, spread, ways
from tvm_passes.lowering.quantized import (
    Float,
    Format,
    Quantized,
    constant_of,
    is_call,
    is_integer_call,
    output_format,
    quantized,
)
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import TensorSpec, call, config_of
from tvm_passes.ops.channels import requantize_channels_config, scale_channels_config
from tvm_passes.ops.pointwise import FUNCTIONS
from tvm_passes.ops.qdq import DequantizeConfig, QuantizeConfig
from tvm_passes.rewrite import Scope

BOUND = 0.75  # output steps
WORD = 2.0**15 - 1  # greatest code of int16 intermediates


@dataclass(frozen=True)
class _Channels:
    """What is to be done: factors along an axis of a tensor, and the format that is wanted.

    Attributes:
        axis: the channels'.
        steps: output steps that the real value 1 makes, of every channel.
        target: format of the output.
    """

    axis: int
    steps: Float
    target: Format

    @property
    def limits(self) -> tuple[int, int]:
        """Least and greatest code, from the zero point."""
        return self.target.qmin - self.target.zero_point, self.target.qmax - self.target.zero_point

    @property
    def real(self) -> Float:
        """The factors themselves."""
        return self.steps * self.target.scale

    @property
    def greatest(self) -> float:
        """The greatest real value that does not saturate in every channel."""
        least = np.abs(self.steps[self.steps != 0]).min(initial=np.inf)
        return float((max(np.abs(self.limits)) + 1.0) / least)

    @property
    def steepest(self) -> float:
        """Output steps of the greatest factor."""
        return float(np.abs(self.steps).max())


def lower_channel_factors(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(f(dequantize(x)) * factors)``, f a function, a normalization or nothing."""
    if not is_integer_call(quantize, "quantize"):
        return None
    if is_call(scope.producer(quantize.args[0]), "relax.add"):
        return _shifted(scope, quantize)
    matched = _match(scope, quantize.args[0], output_format(quantize))
    if matched is None:
        return None
    inner, channels = matched
    return _lowered(scope, inner, channels)


def _shifted(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(f(..) * factors + constant)``: the sum is lowered later, of codes.

    They are int16 codes of the product, as fine as what does not saturate in the end allows.
    """
    total, target = scope.producer(quantize.args[0]), output_format(quantize)
    for product, other in (total.args, total.args[::-1]):
        constant, matched = constant_of(scope, other), _match(scope, product, target)
        if constant is None or matched is None or quantized(scope, matched[0]) is not None:
            continue
        inner, channels = matched
        reach = max(np.abs(channels.limits)) + 1.0 + float(np.abs(constant).max()) / target.scale
        step = float(np.float32(target.scale * reach / WORD))
        fine = Format(step, 0, -32767, 32767, "int16", target.name)
        scaled = _lowered(
            scope, inner, replace(channels, steps=channels.real / fine.scale, target=fine)
        )
        if scaled is None:
            return None
        form = np.array(fine.scale, np.float32), np.array(0, np.int32)
        real = call("dequantize", DequantizeConfig(-1), scope.emit(scaled), *form)
        moved = scope.emit(relax.op.add(scope.emit(real), other))
        return relax.Call(quantize.op, [moved, *quantize.args[1:]])
    return None


def _lowered(scope: Scope, inner: relax.Expr, channels: _Channels) -> relax.Expr | None:
    """``inner`` times its factors in the target's format, if something is known of it."""
    producer = scope.producer(inner)
    if is_integer_call(producer, "normalize"):
        return _normalized(scope, inner, channels)
    if is_integer_call(producer, "pointwise"):
        x = quantized(scope, producer.args[0])
        return None if x is None else _activated(scope, config_of(producer).function, x, channels)
    x = quantized(scope, inner)
    if x is None:
        return None
    scale, zero_point = x.scalar(channels.target.name)
    return _scaled(scope, x.codes, scale, zero_point, channels)


def _match(scope: Scope, expr: relax.Expr, target: Format) -> tuple[relax.Expr, _Channels] | None:
    """The tensor and its factors, of which there are several, along one axis."""
    product = scope.producer(expr)
    if not is_call(product, "relax.multiply"):
        return None
    shape = TensorSpec.of(product).shape
    for inner, other in (product.args, product.args[::-1]):
        factor = constant_of(scope, other)
        if factor is None or TensorSpec.of(inner).shape != shape:
            continue
        axis = channel_axis([factor.shape], len(shape))
        if axis is not None:
            steps = factor.ravel().astype(np.float64) / target.scale
            return inner, _Channels(axis, steps, target)
    return None


def _normalized(scope: Scope, inner: relax.Expr, channels: _Channels) -> relax.Expr:
    """int16 codes of the normalized values if they are fine enough, else int32 ones."""
    axes = config_of(scope.producer(inner)).axes
    shape, name = TensorSpec.of(inner).shape, channels.target.name
    furthest = float(np.sqrt(np.prod(shape[len(shape) - axes :])))  # one value, the others equal
    unit, dtype, limit = min(furthest, channels.greatest) / WORD, "int16", 2**15 - 1
    if 0.5 + unit * channels.steepest > BOUND:
        unit, dtype, limit = furthest / 2.0**27, "int32", 2**31 - 1
    step, zero = np.array(unit, np.float32), np.array(0, np.int32)
    config = QuantizeConfig(-limit, limit, -1, dtype, name)
    codes = scope.emit(call("quantize", config, inner, step, zero))
    return _scaled(scope, codes, float(step), 0, channels, float(step) * channels.steepest / 2)


def _activated(scope: Scope, function: str, x: Quantized, channels: _Channels) -> relax.Expr:
    """By the first way that is within the bound with its factors.

    Lines in 16-bit lanes take factors in 16-bit lanes if more segments can bring that about.
    """
    scale, zero_point = x.scalar(channels.target.name)
    low, high = INT_RANGE[x.spec.dtype]
    exact = FUNCTIONS[function]((np.arange(low, high + 1.0) - zero_point) * scale)
    chosen: tuple[FineCodes, float] | None = None
    for way in ways(function, exact, scale, x.spec.dtype, channels.greatest):
        if chosen is not None and way.name != "pwl8":
            break
        values = way.values.astype(np.float64) * way.unit
        error = spread(values, exact, channels.steps, channels.limits)
        if _words(channels, way.unit, way.dtype, 0, error) is not None:
            chosen = way, error
            break
        if chosen is None and (way.dtype == "int32" or 0.5 + error <= BOUND):
            chosen = way, error
    assert chosen is not None  # the last way is exact
    way, error = chosen
    return _scaled(scope, scope.emit(way.emit(x.codes)), way.unit, 0, channels, error)


def _scaled(
    scope: Scope,
    codes: relax.Expr,
    scale: float,
    zero_point: int,
    channels: _Channels,
    error: float = 0.0,
) -> relax.Expr:
    """Codes that are ``error`` output steps off at most, times factors."""
    dtype = TensorSpec.of(codes).dtype
    words = _words(channels, scale, dtype, zero_point, error)
    if words is not None:
        operator = partial(_apply, "scale_channels", words)
    else:
        exact = requantize_channels_config(*_form(channels, scale, dtype, zero_point))
        operator = partial(_apply, "requantize_channels", exact)
    return channels_last(scope, channels.axis, [codes], operator)


def _words(
    channels: _Channels, scale: float, dtype: str, zero_point: int, error: float
) -> tuple[Any, ...] | None:
    """Factors in 16-bit lanes, if with ``error`` so far that is within the bound."""
    words = scale_channels_config(*_form(channels, scale, dtype, zero_point))
    return None if words is None or 0.5 + error + words[2] > BOUND else words[:2]


def _form(
    channels: _Channels, scale: float, dtype: str, zero_point: int
) -> tuple[Float, str, int, int, int, int, str]:
    """Factors of codes with ``scale``, the codes' format and the output's."""
    beyond = max(np.abs(channels.limits)) + 1.0  # where every code but zero saturates
    steps, target = np.clip(channels.steps * scale, -beyond, beyond), channels.target
    output = target.zero_point, target.qmin, target.qmax, target.dtype
    return steps, dtype, zero_point, *output


def _apply(name: str, parts: tuple[Any, ...], codes: list[relax.Expr]) -> relax.Call:
    config, *factors = parts
    return call(name, config, *codes, *factors)


def channel_axis(shapes: list[tuple[int, ...]], rank: int) -> int | None:
    """The one axis of a tensor of ``rank`` along which constants vary, or None."""
    axes = {
        axis - len(shape) + rank
        for shape in shapes
        for axis, extent in enumerate(shape)
        if extent > 1
    }
    return axes.pop() if len(axes) == 1 else None


def channels_last(
    scope: Scope,
    axis: int,
    codes: list[relax.Expr],
    operator: Callable[[list[relax.Expr]], relax.Call],
) -> relax.Expr:
    """``operator`` on tensors whose axis of channels is moved to the end, and back."""
    rank = len(TensorSpec.of(codes[0]).shape)
    if axis == rank - 1:
        return operator(codes)
    order = [*(i for i in range(rank) if i != axis), axis]
    last = [scope.emit(relax.op.permute_dims(each, order)) for each in codes]
    result = scope.emit(operator(last))
    return relax.op.permute_dims(result, [order.index(i) for i in range(rank)])
