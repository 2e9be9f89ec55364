"""Conversion of each canonical ATen operator to Relax, as a table."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx
from tvm import relax
from tvm.relax.frontend.torch.base_fx_graph_translator import BaseFXGraphImporter

from tvm_passes.ops import qdq
from tvm_passes.ops.base import TensorSpec, call

Converter = Callable[[fx.Node, BaseFXGraphImporter], relax.Var]


def _tensor(importer: BaseFXGraphImporter, node: Any) -> relax.Expr:
    return importer.env[node]


def _emit(importer: BaseFXGraphImporter, expr: relax.Expr) -> relax.Var:
    return importer.block_builder.emit(expr)


def _shape(expr: relax.Expr) -> tuple[int, ...]:
    return TensorSpec.of(expr).shape


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    return tuple(node.args)


def _argument(node: fx.Node, index: int, default: Any = None) -> Any:
    arguments = _arguments(node)
    return arguments[index] if len(arguments) > index else default


def _conv2d(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    x, weight = (_tensor(importer, argument) for argument in _arguments(node)[:2])
    result = _emit(
        importer,
        relax.op.nn.conv2d(
            x,
            weight,
            strides=list(_argument(node, 3, (1, 1))),
            padding=list(_argument(node, 4, (0, 0))),
            dilation=list(_argument(node, 5, (1, 1))),
            groups=_argument(node, 6, 1),
        ),
    )
    bias = _argument(node, 2)
    if bias is None:
        return result
    row = _emit(importer, relax.op.reshape(_tensor(importer, bias), (1, _shape(weight)[0], 1, 1)))
    return _emit(importer, relax.op.add(result, row))


def _linear(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    x, weight = (_tensor(importer, argument) for argument in _arguments(node)[:2])
    transposed = _emit(importer, relax.op.permute_dims(weight, [1, 0]))
    result = _emit(importer, relax.op.matmul(x, transposed))
    bias = _argument(node, 2)
    return result if bias is None else _emit(importer, relax.op.add(result, importer.env[bias]))


def _binary(operator: Callable[..., relax.Expr]) -> Converter:
    def convert(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
        left, right = (
            _tensor(importer, argument)
            if isinstance(argument, fx.Node)
            else relax.const(float(argument), "float32")
            for argument in _arguments(node)[:2]
        )
        return _emit(importer, operator(left, right))

    return convert


def _pointwise(function: str) -> Converter:
    def convert(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
        config = qdq.PointwiseConfig(function)
        return _emit(importer, call("pointwise", config, _tensor(importer, _arguments(node)[0])))

    return convert


def _dynamic_relu(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    tensors = (_tensor(importer, argument) for argument in _arguments(node))
    return _emit(importer, call("float_dynamic_relu", qdq.FloatDynamicReluConfig(), *tensors))


def _layer_norm(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    config = qdq.NormalizeConfig(len(_arguments(node)[1]), float(_argument(node, 4, 1e-5)))
    return _emit(importer, call("normalize", config, _tensor(importer, _arguments(node)[0])))


def _group_norm(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    x = _tensor(importer, _arguments(node)[0])
    config = qdq.NormalizeConfig(len(_shape(x)) - 1, float(_argument(node, 4, 1e-5)))
    return _emit(importer, call("normalize", config, x))


def _softmax(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    return _emit(
        importer, relax.op.nn.softmax(_tensor(importer, _arguments(node)[0]), _arguments(node)[1])
    )


def _mean(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    x = _tensor(importer, _arguments(node)[0])
    axes = [axis % len(_shape(x)) for axis in _argument(node, 1)]
    return _emit(importer, relax.op.mean(x, axes, bool(_argument(node, 2, False))))


def _avg_pool2d(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    kernel = list(_arguments(node)[1])
    pooled = relax.op.nn.avg_pool2d(
        _tensor(importer, _arguments(node)[0]),
        pool_size=kernel,
        strides=list(_argument(node, 2) or kernel),
        padding=list(_argument(node, 3, (0, 0))),
        ceil_mode=bool(_argument(node, 4, False)),
        count_include_pad=bool(_argument(node, 5, True)),
    )
    return _emit(importer, pooled)


def _resize(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    height, width = _arguments(node)[1]
    resized = relax.op.image.resize2d(
        _tensor(importer, _arguments(node)[0]),
        size=relax.ShapeExpr([height, width]),
        layout="NCHW",
        method="linear",
        coordinate_transformation_mode="align_corners" if _arguments(node)[2] else "half_pixel",
    )
    return _emit(importer, resized)


def _reshape(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    shape = [int(extent) for extent in node.meta["val"].shape]
    return _emit(importer, relax.op.reshape(_tensor(importer, _arguments(node)[0]), shape))


def _permute(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    x = _tensor(importer, _arguments(node)[0])
    axes = [axis % len(_shape(x)) for axis in _arguments(node)[1]]
    return _emit(importer, relax.op.permute_dims(x, axes))


def _sliced(
    importer: BaseFXGraphImporter, x: relax.Expr, axis: int, start: int, end: int, step: int = 1
) -> relax.Var:
    return _emit(importer, relax.op.strided_slice(x, [axis], [start], [end], [step]))


def _slice(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    x = _tensor(importer, _arguments(node)[0])
    axis = _argument(node, 1, 0) % len(_shape(x))
    extent = _shape(x)[axis]
    start, end = _argument(node, 2) or 0, _argument(node, 3)
    start = start + extent if start < 0 else start
    end = extent if end is None else min(end + extent if end < 0 else end, extent)
    return _sliced(importer, x, axis, start, end, _argument(node, 4, 1))


def _select(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    x = _tensor(importer, _arguments(node)[0])
    shape = _shape(x)
    axis = _arguments(node)[1] % len(shape)
    index = _arguments(node)[2] % shape[axis]
    row = _sliced(importer, x, axis, index, index + 1)
    return _emit(importer, relax.op.reshape(row, shape[:axis] + shape[axis + 1 :]))


def _cat(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    parts = [_tensor(importer, part) for part in _arguments(node)[0]]
    axis = _argument(node, 1, 0) % len(_shape(parts[0]))
    return _emit(importer, relax.op.concat(parts, axis))


def _roll(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    x = _tensor(importer, _arguments(node)[0])
    for shift, axis in zip(_pair(_arguments(node)[1]), _pair(_argument(node, 2)), strict=True):
        extent = _shape(x)[axis % len(_shape(x))]
        cut = -shift % extent
        if cut:
            parts = [
                _sliced(importer, x, axis, cut, extent),
                _sliced(importer, x, axis, 0, cut),
            ]
            x = _emit(importer, relax.op.concat(parts, axis % len(_shape(x))))
    return x


def _repeat(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    x = _tensor(importer, _arguments(node)[0])
    for axis, times in enumerate(_arguments(node)[1]):
        if times > 1:
            x = _emit(importer, relax.op.concat([x] * times, axis))
    return x


def _pair(value: Any) -> Sequence[int]:
    return [value] if isinstance(value, int) else list(value)


def _quantize(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    x, scale, zero_point, qmin, qmax, axis, dtype, name = _arguments(node)
    config = qdq.QuantizeConfig(qmin, qmax, axis, dtype, name)
    tensors = (_tensor(importer, item) for item in (x, scale, zero_point))
    return _emit(importer, call("quantize", config, *tensors))


def _dequantize(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    tensors = (_tensor(importer, item) for item in _arguments(node)[:3])
    return _emit(importer, call("dequantize", qdq.DequantizeConfig(_arguments(node)[3]), *tensors))


def _format(name: str, config: Callable[..., Any]) -> Converter:
    """A conversion to or from another format than the uniform one: a tensor, a scale, the rest.

    The rest are the fields of ``config`` in order.
    """

    def convert(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
        x, scale, *rest = _arguments(node)
        tensors = (_tensor(importer, item) for item in (x, scale))
        return _emit(importer, call(name, config(*rest), *tensors))

    return convert


CONVERTERS: dict[str, Converter] = {
    "conv2d.default": _conv2d,
    "linear.default": _linear,
    "matmul.default": _binary(relax.op.matmul),
    "add.Tensor": _binary(relax.op.add),
    "mul.Tensor": _binary(relax.op.multiply),
    "relu.default": _pointwise("relu"),
    "hardtanh.default": _pointwise("relu6"),
    "silu.default": _pointwise("silu"),
    "gelu.default": _pointwise("gelu"),
    "hardswish.default": _pointwise("hardswish"),
    "hardsigmoid.default": _pointwise("hardsigmoid"),
    "sigmoid.default": _pointwise("sigmoid"),
    "dynamic_relu.default": _dynamic_relu,
    "layer_norm.default": _layer_norm,
    "group_norm.default": _group_norm,
    "softmax.int": _softmax,
    "mean.dim": _mean,
    "avg_pool2d.default": _avg_pool2d,
    "upsample_bilinear2d.vec": _resize,
    "reshape.default": _reshape,
    "permute.default": _permute,
    "slice.Tensor": _slice,
    "select.int": _select,
    "cat.default": _cat,
    "roll.default": _roll,
    "repeat.default": _repeat,
    "quantize.default": _quantize,
    "dequantize.default": _dequantize,
    "adalog_quantize.default": _format("quantize_log", qdq.QuantizeLogConfig),
    "adalog_dequantize.default": _format("dequantize_log", qdq.DequantizeLogConfig),
    "twin_quantize.default": _format("quantize_twin", qdq.QuantizeTwinConfig),
    "twin_dequantize.default": _format("dequantize_twin", qdq.DequantizeTwinConfig),
}
