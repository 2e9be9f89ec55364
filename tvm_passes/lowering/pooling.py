"""Means, average pooling and bilinear resizing."""

from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.lowering.quantized import (
    Format,
    Quantized,
    is_call,
    is_integer_call,
    output_format,
    quantized,
)
from tvm_passes.ops.base import TensorSpec, call
from tvm_passes.ops.pooling import avg_pool2d_config, mean_config
from tvm_passes.ops.resize import resize_config
from tvm_passes.rewrite import Scope

TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


def lower_mean(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(mean(dequantize(x)))`` becomes ``mean``."""
    match = _match(scope, quantize, "relax.mean")
    if match is None:
        return None
    mean, x, target = match
    scale, zero_point = x.scalar(target.name)
    config = mean_config(
        scale,
        zero_point,
        *_output(target),
        shape=x.spec.shape,
        axes=[int(axis) for axis in mean.attrs.axis],
        keepdims=bool(mean.attrs.keepdims),
        in_dtype=x.spec.dtype,
    )
    return call("mean", config, x.codes)


def lower_avg_pool2d(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(avg_pool2d(dequantize(x)))``, NCHW, becomes ``avg_pool2d`` on an NHWC map."""
    match = _match(scope, quantize, "relax.nn.avg_pool2d")
    if match is None:
        return None
    pool, x, target = match
    attrs = pool.attrs
    padding = [int(extent) for extent in attrs.padding]
    if attrs.ceil_mode or padding[:2] != padding[2:] or (any(padding) and attrs.count_include_pad):
        raise LoweringError(f"{target.name}: avg_pool2d with ceil_mode or counted padding")
    scale, zero_point = x.scalar(target.name)
    config, multiplier = avg_pool2d_config(
        scale,
        zero_point,
        *_output(target),
        kernel=(int(attrs.pool_size[0]), int(attrs.pool_size[1])),
        strides=(int(attrs.strides[0]), int(attrs.strides[1])),
        padding=(padding[0], padding[1]),
    )
    nhwc = scope.emit(relax.op.permute_dims(x.codes, TO_NHWC))
    pooled = scope.emit(call("avg_pool2d", config, nhwc, multiplier))
    return relax.op.permute_dims(pooled, TO_NCHW)


def lower_resize(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(resize2d(dequantize(x)))``, bilinear NCHW, becomes ``resize_bilinear``."""
    match = _match(scope, quantize, "relax.image.resize2d")
    if match is None:
        return None
    resize, x, target = match
    mode = str(resize.attrs.coordinate_transformation_mode)
    if str(resize.attrs.method) != "linear" or mode not in ("half_pixel", "align_corners"):
        raise LoweringError(f"{target.name}: only bilinear resizing is supported")
    _, _, height, width = x.spec.shape
    _, _, out_height, out_width = TensorSpec.of(resize).shape
    scale, zero_point = x.scalar(target.name)
    config, rows, columns = resize_config(
        scale,
        zero_point,
        *_output(target),
        extents=(height, width),
        size=(out_height, out_width),
        align_corners=mode == "align_corners",
        in_dtype=x.spec.dtype,
    )
    nhwc = scope.emit(relax.op.permute_dims(x.codes, TO_NHWC))
    resized = scope.emit(call("resize_bilinear", config, nhwc, rows, columns))
    return relax.op.permute_dims(resized, TO_NCHW)


def _match(
    scope: Scope, quantize: relax.Call, name: str
) -> tuple[relax.Call, Quantized, Format] | None:
    """The operator ``name`` between a quantizer and a dequantized operand."""
    if not is_integer_call(quantize, "quantize"):
        return None
    inner = scope.producer(quantize.args[0])
    if not is_call(inner, name):
        return None
    x = quantized(scope, inner.args[0])
    return None if x is None else (inner, x, output_format(quantize))


def _output(target: Format) -> tuple[float, int, int, int, str]:
    return target.scale, target.zero_point, target.qmin, target.qmax, target.dtype
