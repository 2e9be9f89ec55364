"""Quantized networks as imported: quantize, dequantize and the float operators Relax lacks.

These operators stand between float tensors of the imported module. The lowering replaces every
``quantize(op(dequantize(codes)))`` by one integer operator; the references here define what the
imported module means. Arguments of the four conversions: tensor, scale (float32), and zero point
(int32) for the uniform ones; scale and zero point are scalars, or 1-D along ``axis``. Between the
passes those of ``dequantize`` may also broadcast against the tensor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.ops.base import Operator, TensorSpec, register, same_as

Array = NDArray[Any]


@dataclass(frozen=True)
class QuantizeConfig:
    """Format of ``quantize``.

    Attributes:
        qmin: least code.
        qmax: greatest code.
        axis: axis of the scales, -1 for one scale.
        dtype: dtype of the codes.
        name: PyTorch module path of the tensor, for messages.
    """

    qmin: int
    qmax: int
    axis: int
    dtype: str
    name: str


@dataclass(frozen=True)
class DequantizeConfig:
    """``dequantize`` back to float32; ``axis`` as in ``QuantizeConfig``.

    With axis -1 scales may also have the rank of the tensor, and broadcast against it.
    """

    axis: int
    dtype: str = "float32"


@dataclass(frozen=True)
class QuantizeLogConfig:
    """Logarithmic codes of ``x + shift``; the greatest code stands for zero.

    AdaLog (ECCV 2024, section 3.2) has r = 37; q = r = 1 is a logarithm to base two.

    Attributes:
        q: numerator of the base's exponent, base = 2^(q/r).
        r: its denominator.
        bits: width of a code.
        shift: added to x before the logarithm.
        name: PyTorch module path of the tensor.
        dtype: always uint8.
    """

    q: int
    r: int
    bits: int
    shift: float
    name: str
    dtype: str = "uint8"


@dataclass(frozen=True)
class DequantizeLogConfig:
    """Inverse of ``QuantizeLogConfig``."""

    q: int
    r: int
    bits: int
    shift: float
    dtype: str = "float32"


@dataclass(frozen=True)
class QuantizeTwinConfig:
    """Twin uniform codes (PTQ4ViT, section 3.2): two ranges of ``h = 2^(bits-1)`` codes each.

    Unsigned: codes below h have the step ``scale``, the others ``scale * 2^m``, counted from h.
    Signed: codes below h have the step ``scale * 2^m``, the others ``-scale``, counted from h.

    Attributes:
        m: binary logarithm of the ratio of the steps.
        bits: width of a code, 2 to 8.
        signed: whether the fine range is that of negative values.
        name: PyTorch module path of the tensor.
        dtype: always uint8.
    """

    m: int
    bits: int
    signed: bool
    name: str
    dtype: str = "uint8"


@dataclass(frozen=True)
class DequantizeTwinConfig:
    """Inverse of ``QuantizeTwinConfig``."""

    m: int
    bits: int
    signed: bool
    dtype: str = "float32"


@dataclass(frozen=True)
class PointwiseConfig:
    """A float function of one element, by its name in ``tvm_passes.ops.pointwise``."""

    function: str
    dtype: str = "float32"


@dataclass(frozen=True)
class FloatDynamicReluConfig:
    """``max(2 g x, (2 h - 1) x)`` in float; arguments x, g, h, which broadcast."""

    dtype: str = "float32"


@dataclass(frozen=True)
class NormalizeConfig:
    """Float normalization without affine over the last ``axes`` axes."""

    axes: int
    epsilon: float
    dtype: str = "float32"


def along_axis(values: Array, axis: int, rank: int) -> Array:
    """Scales along ``axis``, [] without one, shaped to broadcast against a tensor of ``rank``.

    Where there is no axis and scales vary, they have the rank of the tensor already.
    """
    if axis < 0 or values.ndim == 0:
        return values
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def _quantize(config: QuantizeConfig, x: Array, scale: Array, zero_point: Array) -> Array:
    steps = np.floor(x / along_axis(scale, config.axis, x.ndim) + 0.5)
    codes = steps + along_axis(zero_point, config.axis, x.ndim)
    return np.clip(codes, config.qmin, config.qmax).astype(config.dtype)


def _dequantize(config: DequantizeConfig, codes: Array, scale: Array, zero_point: Array) -> Array:
    steps = codes.astype(np.int64) - along_axis(zero_point, config.axis, codes.ndim)
    return (steps * along_axis(scale, config.axis, codes.ndim)).astype(np.float32)


def _quantize_log(config: QuantizeLogConfig, x: Array, scale: Array) -> Array:
    value = x.astype(np.float64) + config.shift
    ratio = np.where(value > 0, value, 1.0) / scale
    codes = np.floor(-np.log2(ratio) * config.r / config.q + 0.5)
    zero = 2**config.bits - 1
    return np.where((value <= 0) | (codes >= zero), zero, np.maximum(codes, 0)).astype(np.uint8)


def _dequantize_log(config: DequantizeLogConfig, codes: Array, scale: Array) -> Array:
    exponent = -codes.astype(np.float64) * config.q / config.r
    values = np.where(codes == 2**config.bits - 1, 0.0, scale * 2.0**exponent)
    return (values - config.shift).astype(np.float32)


def _quantize_twin(config: QuantizeTwinConfig, x: Array, scale: Array) -> Array:
    half = 1 << (config.bits - 1)
    fine = np.floor(x.astype(np.float64) / scale + 0.5)
    coarse = np.floor(x.astype(np.float64) / (scale * 2.0**config.m) + 0.5)
    if config.signed:
        codes = np.where(x < 0, half + np.minimum(-fine, half - 1), np.minimum(coarse, half - 1))
    else:
        high = half + np.minimum(coarse, half - 1)
        codes = np.where(fine < half, np.maximum(fine, 0), high)
    return codes.astype(np.uint8)


def _dequantize_twin(config: DequantizeTwinConfig, codes: Array, scale: Array) -> Array:
    half = 1 << (config.bits - 1)
    count = (codes & (half - 1)).astype(np.float64)
    upper, lower = (-1.0, 2.0**config.m) if config.signed else (2.0**config.m, 1.0)
    steps = count * np.where(codes & half, upper, lower)
    return (steps * scale).astype(np.float32)


def _normalize(config: NormalizeConfig, x: Array) -> Array:
    axes = tuple(range(x.ndim - config.axes, x.ndim))
    centred = x - x.mean(axes, keepdims=True)
    result: Array = centred / np.sqrt(centred.var(axes, keepdims=True) + config.epsilon)
    return result


def _pointwise(config: PointwiseConfig, x: Array) -> Array:
    from tvm_passes.ops.pointwise import FUNCTIONS  # imported late: it registers operators itself

    return np.asarray(FUNCTIONS[config.function](x), np.float32)


def _dynamic_relu(config: FloatDynamicReluConfig, x: Array, first: Array, second: Array) -> Array:
    return np.maximum(2 * first * x, (2 * second - 1) * x).astype(config.dtype)


def _infer(config: Any, specs: Sequence[TensorSpec]) -> TensorSpec:
    return same_as()(config, specs)


register(Operator("quantize", QuantizeConfig, _infer, _quantize))
register(Operator("dequantize", DequantizeConfig, _infer, _dequantize))
register(Operator("quantize_log", QuantizeLogConfig, _infer, _quantize_log))
register(Operator("dequantize_log", DequantizeLogConfig, _infer, _dequantize_log))
register(Operator("quantize_twin", QuantizeTwinConfig, _infer, _quantize_twin))
register(Operator("dequantize_twin", DequantizeTwinConfig, _infer, _dequantize_twin))
register(Operator("normalize", NormalizeConfig, _infer, _normalize))
register(Operator("float_dynamic_relu", FloatDynamicReluConfig, _infer, _dynamic_relu))
register(Operator("pointwise", PointwiseConfig, _infer, _pointwise))
