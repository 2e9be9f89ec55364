"""A factor per channel behind an activation, a normalization or codes.

Such factors bring channels of very different range to one format before a product of 8-bit codes.
The function is evaluated to codes that are finer than any channel needs, then every channel is
rounded to the output. A code is at most ``BOUND`` output steps from the exact value of the input's
codes, half a step being the rounding itself: of the ways to get there, cheapest first, the first
one is taken whose bound, computed over every input and factor, is that small.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tvm import relax

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
from tvm_passes.ops.base import OPERATORS, TensorSpec, call, config_of
from tvm_passes.ops.channels import requantize_channels_config, scale_channels_config
from tvm_passes.ops.pointwise import FUNCTIONS, LutConfig
from tvm_passes.ops.pwl import pwl_tables
from tvm_passes.ops.pwl8 import SEGMENTS, pwl8_lines
from tvm_passes.ops.qdq import QuantizeConfig
from tvm_passes.rewrite import Scope

BOUND = 0.75  # output steps
FINENESS, MOST_FACTORS = 2.0 ** (1 / 8), 32  # of the factors that the bound is computed for
WORD, LONG = 2.0**15 - 1, 2.0**30  # greatest codes of int16 and int32 intermediates


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
    def greatest(self) -> float:
        """The greatest real value that does not saturate in every channel."""
        least = np.abs(self.steps[self.steps != 0]).min(initial=np.inf)
        return float((max(np.abs(self.limits)) + 1.0) / least)

    @property
    def steepest(self) -> float:
        """Output steps of the greatest factor."""
        return float(np.abs(self.steps).max())


@dataclass(frozen=True)
class _Way:
    """A function in fine codes.

    Attributes:
        emit: the operator on the input's codes.
        values: its codes of every input.
        unit: real value of one of their steps.
        dtype: their dtype.
    """

    emit: Callable[[relax.Expr], relax.Call]
    values: NDArray[np.signedinteger]
    unit: float
    dtype: str


def lower_channel_factors(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(f(dequantize(x)) * factors)``, f a function, a normalization or nothing."""
    if not is_integer_call(quantize, "quantize"):
        return None
    matched = _match(scope, quantize)
    if matched is None:
        return None
    inner, channels = matched
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


def _match(scope: Scope, quantize: relax.Call) -> tuple[relax.Expr, _Channels] | None:
    """The tensor and its factors, of which there are several, along one axis."""
    product = scope.producer(quantize.args[0])
    if not is_call(product, "relax.multiply"):
        return None
    shape = TensorSpec.of(product).shape
    for inner, other in (product.args, product.args[::-1]):
        factor = constant_of(scope, other)
        if factor is None or TensorSpec.of(inner).shape != shape:
            continue
        axis = channel_axis([factor.shape], len(shape))
        if axis is not None:
            target = output_format(quantize)
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
    """The first way that is within the bound."""
    scale, zero_point = x.scalar(channels.target.name)
    low, high = INT_RANGE[x.spec.dtype]
    exact = FUNCTIONS[function]((np.arange(low, high + 1.0) - zero_point) * scale)
    for way in _ways(function, exact, x, channels):
        values = way.values.astype(np.float64) * way.unit
        error = spread(values, exact, channels.steps, channels.limits)
        if way.dtype == "int32" or 0.5 + error <= BOUND:
            break
    codes = scope.emit(way.emit(x.codes))
    return _scaled(scope, codes, way.unit, 0, channels, error)


def _ways(function: str, exact: Float, x: Quantized, channels: _Channels) -> Iterator[_Way]:
    """Lines in 16-bit lanes, in 32-bit lanes, and a table of all inputs, for int16 codes."""
    greatest = max(min(float(np.abs(exact).max()), channels.greatest), 1e-30)
    if x.spec.dtype == "int16":
        scale, _ = x.scalar(channels.target.name)
        for segments in SEGMENTS:
            lines, unit = pwl8_lines(function, scale, greatest, segments)
            yield _way("pwl8", lines.config, (lines.slope, lines.base), unit)
        unit = greatest / WORD
        fitted = pwl_tables(function, scale, unit, 0, -32767, 32767, "int16")
        yield _way("pwl", fitted.config, (fitted.slope, fitted.base), unit)
    else:
        yield _table(exact, greatest / WORD, "int16", x.spec.dtype)
    yield _table(exact, float(np.abs(exact).max()) / LONG or 1.0, "int32", x.spec.dtype)


def _way(
    name: str, config: object, tables: tuple[NDArray[np.signedinteger], ...], unit: float
) -> _Way:
    every = np.arange(-32768, 32768).astype(np.int16)
    values = OPERATORS[name].reference(config, every, *tables)
    return _Way(lambda codes: call(name, config, codes, *tables), values, unit, "int16")


def _table(exact: Float, unit: float, dtype: str, in_dtype: str) -> _Way:
    """Exact to half a step, of which int32 has more than any two factors can tell apart."""
    low, high = INT_RANGE[dtype]
    values = np.clip(np.floor(exact / unit + 0.5), low + 1, high).astype(dtype)
    config = LutConfig(dtype)
    return _Way(lambda codes: call("lut", config, codes, values), values, unit, dtype)


def spread(approximate: Float, exact: Float, steps: Float, limits: tuple[int, int]) -> float:
    """How far outputs before rounding may be apart, in steps, clamped as they will be.

    Of many factors a geometric progression stands for all: clamping to a range around zero never
    moves two values apart, so between two of its terms the distance grows by less than their ratio.

    Args:
        approximate: real values of every input.
        exact: what they stand for.
        steps: of the output that the real value 1 makes, of every channel.
        limits: least and greatest output, at most and at least 0.
    """
    worst = 0.0
    for sign in (1.0, -1.0):
        chosen, slack = np.unique(steps[steps * sign > 0] * sign), 1.0
        if chosen.size > MOST_FACTORS:
            octaves, slack = float(np.log2(chosen[-1] / chosen[0])), FINENESS
            chosen = chosen[0] * FINENESS ** np.arange(octaves / np.log2(FINENESS) + 1)
        for factor in chosen * sign:
            far = np.clip(approximate * factor, *limits) - np.clip(exact * factor, *limits)
            worst = max(worst, float(np.abs(far).max()) * slack)
    return worst


def _scaled(
    scope: Scope,
    codes: relax.Expr,
    scale: float,
    zero_point: int,
    channels: _Channels,
    error: float = 0.0,
) -> relax.Expr:
    """Codes times factors, in 16-bit lanes if with ``error`` so far that is within the bound."""
    target, dtype = channels.target, TensorSpec.of(codes).dtype
    beyond = max(np.abs(channels.limits)) + 1.0  # where every code but zero saturates
    steps = np.clip(channels.steps * scale, -beyond, beyond)
    output = (zero_point, target.zero_point, target.qmin, target.qmax, target.dtype)
    words = scale_channels_config(steps, dtype, *output)
    if words is not None and 0.5 + error + words[2] <= BOUND:
        operator = partial(_apply, "scale_channels", words[:2])
    else:
        exact = requantize_channels_config(steps, dtype, *output)
        operator = partial(_apply, "requantize_channels", exact)
    return channels_last(scope, channels.axis, [codes], operator)


def _apply(name: str, parts: tuple, codes: list[relax.Expr]) -> relax.Call:
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
