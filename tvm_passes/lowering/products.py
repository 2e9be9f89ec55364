"""conv2d and linear with constant weights: product, bias, clamp and requantize in one operator."""

from dataclasses import dataclass, replace

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
    output_format,
    quantized,
)
from tvm_passes.numerics import Rescale
from tvm_passes.ops.base import TensorSpec, call, config_of
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig
from tvm_passes.ops.pad import PadConfig
from tvm_passes.ops.pointwise import WEIGHT_MAX
from tvm_passes.rewrite import Scope


@dataclass(frozen=True)
class _Product:
    """``clamp(core + sum(biases))`` with the float core still in place."""

    core: relax.Call
    biases: list[Float]
    format: Format


def lower_linear(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(matmul(dequantize(x), dequantize(w)) + bias)`` becomes ``linear``."""
    product = _match(scope, quantize, "relax.matmul", channel_axis=-1)
    if product is None:
        return None
    x, weights = _operands(scope, product, output_axis=1)
    if x is None or weights is None:
        return None
    codes, scales = _weight_arrays(weights, output_axis=1, name=product.format.name)
    bias = _bias_table(product, codes.shape[1])
    if bias.shape[0] != 1:
        raise LoweringError(f"{product.format.name}: a linear layer with a bias per token")
    x = _by_output(x, -1, 1, codes.shape[1], product.format.name)
    config, arrays = _finish(scope, product.format, x, codes.T, scales, bias)
    return call("linear", config, x.codes, *arrays)


def lower_conv2d(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(conv2d(dequantize(x), dequantize(w)) + bias)``, NCHW, on an NHWC map."""
    product = _match(scope, quantize, "relax.nn.conv2d", channel_axis=1)
    if product is None:
        return None
    x, weights = _operands(scope, product, output_axis=0)
    if x is None or weights is None:
        return None
    attrs, name = product.core.attrs, product.format.name
    codes, scales = _weight_arrays(weights, output_axis=0, name=name)
    kernel = np.ascontiguousarray(codes.transpose(0, 2, 3, 1))
    padding = [int(extent) for extent in attrs.padding]
    _, _, height, width = TensorSpec.of(product.core).shape
    table, rows, columns = _border_classes(_bias_map(product, len(kernel), height, width))
    groups = int(attrs.groups)
    if rows and groups != 1:
        raise LoweringError(f"{name}: a grouped convolution with a bias per pixel")
    if groups > 1:
        x = _unrepeated(scope, x)
    x = _by_output(x, 1, groups, len(kernel), name)
    base, arrays = _finish(scope, product.format, x, kernel, scales, table)
    nhwc = scope.emit(relax.op.permute_dims(x.codes, [0, 2, 3, 1]))
    if any(padding):
        if x.offset:
            raise LoweringError(f"{name}: a padded convolution of shifted AdaLog codes")
        pads = PadConfig((padding[0], padding[1]), (padding[2], padding[3]), int(x.zero_point))
        nhwc = scope.emit(call("pad", pads, nhwc))
    strides = (int(attrs.strides[0]), int(attrs.strides[1]))
    if kernel.shape[1:3] == (1, 1) and strides == (1, 1) and groups == 1 and not rows:
        weights_array = kernel.reshape(len(kernel), -1)
        result = call("linear", base, nhwc, weights_array, *arrays[1:])
    else:
        config = Conv2dConfig(
            **vars(base),
            strides=strides,
            dilation=(int(attrs.dilation[0]), int(attrs.dilation[1])),
            groups=groups,
            row_classes=rows,
            column_classes=columns,
        )
        result = call("conv2d", config, nhwc, *arrays)
    return relax.op.permute_dims(scope.emit(result), [0, 3, 1, 2])


def _unrepeated(scope: Scope, x: Quantized) -> Quantized:
    """One copy of the channels of a map that is the same map several times; ``conv2d`` repeats."""
    producer = scope.producer(x.codes)
    if not is_call(producer, "relax.concat") or producer.attrs.axis != 1:
        return x
    first, *others = producer.args[0].fields
    return replace(x, codes=first) if all(other.same_as(first) for other in others) else x


def _match(
    scope: Scope, quantize: relax.Call, core_name: str, channel_axis: int
) -> _Product | None:
    """Peel a clamp and constant additions off a quantized product.

    Scales of the target may vary along ``channel_axis``.
    """
    if not is_integer_call(quantize, "quantize"):
        return None
    expr = scope.producer(quantize.args[0])
    clamp: str | None = None
    if is_integer_call(expr, "pointwise") and config_of(expr).function in ("relu", "relu6"):
        clamp = config_of(expr).function
        expr = scope.producer(expr.args[0])
    biases = []
    while is_call(expr, "relax.add"):
        constants = [constant_of(scope, argument) for argument in expr.args]
        if constants[1] is not None:
            inner, bias = expr.args[0], constants[1]
        elif constants[0] is not None:
            inner, bias = expr.args[1], constants[0]
        else:
            return None
        biases.append(bias.astype(np.float64))
        expr = scope.producer(inner)
    if not is_call(expr, core_name):
        return None
    target = output_format(quantize, channel_axis % len(TensorSpec.of(expr).shape))
    if clamp is not None:
        upper = target.qmax if clamp == "relu" else _code(6.0, target)
        least, greatest = max(target.qmin, target.zero_point), min(target.qmax, upper)
        target = replace(target, qmin=least, qmax=greatest)
    return _Product(expr, biases, target)


def _code(value: float, target: Format) -> int:
    if target.channels is not None:
        raise LoweringError(f"{target.name}: a clamp at {value} with a scale per channel")
    return int(np.floor(value / target.scale + 0.5)) + target.zero_point


def _operands(
    scope: Scope, product: _Product, output_axis: int
) -> tuple[Quantized | None, Quantized | None]:
    """Activation and constant weights of a product, or None where it has no such operand."""
    weights = quantized(scope, product.core.args[1])
    codes = None if weights is None else array_of(weights.codes)
    if weights is None or codes is None:
        return None, None
    # half of the accumulator for the products of the largest AdaLog values, half for the bias
    outputs = np.moveaxis(codes, output_axis, 0).reshape(codes.shape[output_axis], -1)
    longest = int(np.abs(outputs.astype(np.int64)).sum(1).max(initial=1))
    return operand(scope, product.core.args[0], min(WEIGHT_MAX, 2**30 // max(longest, 1))), weights


def _by_output(x: Quantized, axis: int, groups: int, outputs: int, name: str) -> Quantized:
    """``x`` with the scale of each output's inputs, where scales vary along the channels ``axis``.

    Raises:
        LoweringError: channels that are added up have different scales.
    """
    scales, _ = x.along(axis, name)
    if not scales.ndim:
        return x
    each = scales.reshape(groups, -1)
    if np.any(each != each[:, :1]):
        raise LoweringError(f"{name}: input with a scale per channel")
    return replace(x, scale=each[:, 0].repeat(outputs // groups))


def _weight_arrays(
    weights: Quantized, output_axis: int, name: str
) -> tuple[NDArray[np.int8], Float]:
    codes = array_of(weights.codes)
    if codes is None or np.any(weights.zero_point != 0):
        raise LoweringError(f"{name}: weights must be constant and symmetric")
    try:
        scales, _ = weights.along(output_axis, name)
    except LoweringError as error:
        raise LoweringError(f"{name}: weight scales must lie along the output channels") from error
    return codes, np.broadcast_to(scales, (codes.shape[output_axis],))


def _bias_table(product: _Product, channels: int) -> Float:
    """Sum of the biases of a linear layer, [rows, channels]."""
    total = np.zeros((1, channels))
    for bias in product.biases:
        total = total + bias.reshape(-1, bias.shape[-1] if bias.ndim else 1)
    return total


def _bias_map(product: _Product, channels: int, height: int, width: int) -> Float:
    """Sum of the biases of a convolution, [height or 1, width or 1, channels]."""
    total = np.zeros((1, channels, 1, 1))
    for bias in product.biases:
        total = total + bias
    if total.shape[2:] != (1, 1):
        total = np.broadcast_to(total, (1, channels, height, width))
    return total[0].transpose(1, 2, 0)


def _border_classes(bias: Float) -> tuple[Float, tuple[int, ...], tuple[int, ...]]:
    """Distinct bias rows, and the class of each output row and column."""
    height, width, channels = bias.shape
    if (height, width) == (1, 1):
        return bias.reshape(1, channels), (), ()
    _, first_row, row_class = np.unique(
        bias.reshape(height, -1), axis=0, return_index=True, return_inverse=True
    )
    _, first_column, column_class = np.unique(
        bias.transpose(1, 0, 2).reshape(width, -1), axis=0, return_index=True, return_inverse=True
    )
    table = bias[first_row][:, first_column].reshape(-1, channels)
    return table, tuple(map(int, row_class.ravel())), tuple(map(int, column_class.ravel()))


def _finish(
    scope: Scope, target: Format, x: Quantized, codes: NDArray[np.int8], scales: Float, bias: Float
) -> tuple[LinearConfig, tuple[NDArray[np.int32], ...]]:
    """Configuration and constants of ``linear``; ``codes`` has output channels first.

    The scale of ``x`` is one, or one for each output channel.
    """
    acc_scale = x.scale * scales
    sums = codes.reshape(len(codes), -1).astype(np.int64).sum(1)
    shifted = bias + x.offset * sums * scales
    folded = np.floor(shifted / acc_scale + 0.5) - int(x.zero_point) * sums
    multiplier: Rescale = target.multiplier(acc_scale)
    _check_accumulator(scope, target, x, codes, folded, multiplier.left)
    config = LinearConfig(
        multiplier.left, target.zero_point, target.qmin, target.qmax, target.dtype
    )
    return config, (
        np.ascontiguousarray(codes),
        folded.astype(np.int32),
        multiplier.multiplier,
    )


def _check_accumulator(
    scope: Scope,
    target: Format,
    x: Quantized,
    codes: NDArray[np.int8],
    bias: Float,
    left: int,
) -> None:
    """Prove that no accumulator, pre-shifted, leaves int32."""
    zero_point = int(x.zero_point)  # of the padding
    low, high = code_range(scope, x)
    low, high = min(low, zero_point, 0), max(high, zero_point, 0)
    weights = codes.reshape(len(codes), -1).astype(np.int64)
    positive, negative = np.maximum(weights, 0).sum(1), np.minimum(weights, 0).sum(1)
    greatest = positive * high + negative * low + bias.max(0)
    least = positive * low + negative * high + bias.min(0)
    bound = max(float(greatest.max()), -float(least.min())) * 2.0**left
    if bound >= 2.0**31:
        raise LoweringError(
            f"{target.name}: accumulators may reach 2^{np.log2(bound):.1f} and overflow int32"
        )
