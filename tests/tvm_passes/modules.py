"""Small quantized modules, their meaning in floating point, and rules applied to them."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import tvm
from numpy.typing import NDArray
from tvm import relax

from tvm_passes.interpret import VIEWS, interpret
from tvm_passes.lowering.quantized import array_of, is_call
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import TensorSpec, call, config_of, operator_of
from tvm_passes.ops.qdq import DequantizeConfig, PointwiseConfig, QuantizeConfig
from tvm_passes.rewrite import MAIN, Rule, main_bindings, rewrite_main

Array = NDArray[Any]


def text(config: object) -> str:
    """A configuration as a call carries it, for ``R.str`` in TVMScript."""
    return json.dumps(dataclasses.asdict(config), sort_keys=True)  # type: ignore[call-overload]


def quantize_config(
    dtype: str = "int8",
    name: str = "y",
    axis: int = -1,
    codes: tuple[int, int] | None = None,
) -> QuantizeConfig:
    """The whole range of ``dtype``; int16 without its lowest code, as quantizers have it."""
    low, high = INT_RANGE[dtype]
    least, greatest = codes or (low + (dtype == "int16"), high)
    return QuantizeConfig(least, greatest, axis, dtype, name)


@dataclasses.dataclass(frozen=True)
class Graph:
    """A ``main`` under construction."""

    builder: relax.BlockBuilder

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Bind an expression."""
        return self.builder.emit(expr)

    def dequantize(
        self, codes: relax.Expr, scale: Any, zero_point: Any = 0, axis: int = -1
    ) -> relax.Var:
        """Codes as float32."""
        arrays = np.asarray(scale, np.float32), np.asarray(zero_point, np.int32)
        return self.emit(call("dequantize", DequantizeConfig(axis), codes, *arrays))

    def quantize(
        self,
        x: relax.Expr,
        scale: Any,
        zero_point: Any = 0,
        dtype: str = "int8",
        name: str = "y",
        axis: int = -1,
        codes: tuple[int, int] | None = None,
    ) -> relax.Var:
        """Codes of a range, the whole one of ``dtype`` unless given."""
        arrays = np.asarray(scale, np.float32), np.asarray(zero_point, np.int32)
        return self.emit(call("quantize", quantize_config(dtype, name, axis, codes), x, *arrays))

    def stored(self, x: relax.Expr, *arguments: Any, **options: Any) -> relax.Var:
        """A quantize/dequantize pair; arguments as of ``quantize``."""
        scale, zero_point = arguments[0], arguments[1] if len(arguments) > 1 else 0
        codes = self.quantize(x, *arguments, **options)
        return self.dequantize(codes, scale, zero_point, options.get("axis", -1))

    def weights(self, values: Array, axis: int = 0, bits: int = 8) -> relax.Var:
        """Float weights in symmetric codes with a scale per output channel."""
        others = tuple(i for i in range(values.ndim) if i != axis)
        top = 2 ** (bits - 1) - 1
        scale = (np.abs(values).max(others, keepdims=True) / top).astype(np.float32)
        codes = np.clip(np.floor(values / scale + 0.5), -top, top).astype(np.int8)
        zeros = np.zeros(values.shape[axis], np.int32)
        return self.dequantize(relax.const(codes), scale.ravel(), zeros, axis)

    def pointwise(self, function: str, x: relax.Expr) -> relax.Var:
        """A function of one element."""
        return self.emit(call("pointwise", PointwiseConfig(function), x))


def build(
    inputs: Sequence[tuple[tuple[int, ...], str]], body: Callable[..., relax.Expr]
) -> tvm.IRModule:
    """Module whose ``main`` takes ``inputs`` (shape, dtype) and returns ``body(graph, *vars)``."""
    builder = relax.BlockBuilder()
    variables = [
        relax.Var(f"x{index}", relax.TensorType(shape, dtype))
        for index, (shape, dtype) in enumerate(inputs)
    ]
    with builder.function(MAIN, variables):
        with builder.dataflow():
            result = builder.emit_output(body(Graph(builder), *variables))
        builder.emit_func_output(result)
    return builder.get()


def apply_rules(mod: tvm.IRModule, *rules: Rule) -> tvm.IRModule:
    """The module after every rule in order."""
    for rule in rules:
        mod = rewrite_main(mod, rule)
    return mod


def assert_rewrites(before: tvm.IRModule, after: tvm.IRModule, *rules: Rule) -> None:
    """Assert that ``rules`` turn ``before`` into ``after``."""
    assert_module(apply_rules(before, *rules), after)


def assert_module(got: tvm.IRModule, expected: tvm.IRModule) -> None:
    """Assert that a pass has made the module ``expected``."""
    unchanged = rewrite_main(expected, lambda scope, expr: None)  # the same frame of bindings
    tvm.ir.assert_structural_equal(got, unchanged)


def operators(mod: tvm.IRModule) -> list[str]:
    """Short names of the operators that ``main`` calls, in order."""
    names = [
        str(getattr(binding.value.op, "name", binding.value.op))
        for binding in main_bindings(mod)
        if isinstance(binding.value, relax.Call)
    ]
    return [name.removeprefix("relax.").removeprefix("pocketvit.") for name in names]


def configs(mod: tvm.IRModule, name: str) -> list[Any]:
    """Configurations of all calls of the integer operator ``name``."""
    calls = [binding.value for binding in main_bindings(mod)]
    return [
        config_of(expr)
        for expr in calls
        if (operator := operator_of(expr)) is not None and operator.name == name
    ]


def assert_close(
    before: tvm.IRModule, after: tvm.IRModule, *inputs: Array, codes: int = 1, share: float = 1.0
) -> None:
    """Assert that integers and floating point agree within ``codes``, and mostly exactly.

    Args:
        before: float operators between quantizers, returning codes.
        after: the lowered module.
        inputs: arguments of both.
        codes: greatest difference.
        share: greatest share of elements that may differ at all.
    """
    expected, got = float_value(before, *inputs), interpret(after, *inputs)
    assert (expected.shape, expected.dtype) == (got.shape, got.dtype)
    difference = np.abs(expected.astype(np.int64) - got)
    assert difference.max() <= codes
    assert np.mean(difference > 0) <= share
    assert len(np.unique(expected)) >= min(4, expected.size), "the test is blind"


def float_value(mod: tvm.IRModule, *inputs: Array) -> Array:
    """Result of a module before lowering: the definitions, in double precision."""
    values: dict[relax.Var, Any] = dict(zip(mod[MAIN].params, inputs, strict=True))

    def value(expr: relax.Expr) -> Any:
        if isinstance(expr, relax.Var):
            return values[expr]
        if isinstance(expr, relax.Tuple):
            return [value(item) for item in expr.fields]
        constant = array_of(expr)
        return _evaluate(expr, value) if constant is None else constant

    for binding in main_bindings(mod):
        values[binding.var] = value(binding.value)
    result: Array = value(mod[MAIN].body.body)
    return result


def _evaluate(expr: relax.Call, value: Callable[[relax.Expr], Any]) -> Array:
    operator = operator_of(expr)
    if operator is not None:
        return operator.reference(config_of(expr), *(value(arg) for arg in expr.args[:-1]))
    name = str(expr.op.name)
    if name in VIEWS:
        return VIEWS[name](expr, value(expr.args[0]))
    if is_call(expr, "relax.concat"):
        return np.concatenate(value(expr.args[0]), int(expr.attrs.axis))
    arrays = [value(arg) for arg in expr.args if not isinstance(arg, relax.ShapeExpr)]
    return FLOAT[name](expr, *(array.astype(np.float64) for array in arrays))


def _softmax(expr: relax.Call, x: Array) -> Array:
    axis = int(expr.attrs.axis)
    weights = np.exp(x - x.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def _mean(expr: relax.Call, x: Array) -> Array:
    return x.mean(tuple(map(int, expr.attrs.axis)), keepdims=bool(expr.attrs.keepdims))


def _conv2d(expr: relax.Call, x: Array, w: Array) -> Array:
    attrs = expr.attrs
    top, left, bottom, right = map(int, attrs.padding)
    padded = torch.nn.functional.pad(torch.from_numpy(x), (left, right, top, bottom))
    return torch.nn.functional.conv2d(
        padded,
        torch.from_numpy(w),
        stride=tuple(map(int, attrs.strides)),
        dilation=tuple(map(int, attrs.dilation)),
        groups=int(attrs.groups),
    ).numpy()


def _avg_pool2d(expr: relax.Call, x: Array) -> Array:
    attrs = expr.attrs
    return torch.nn.functional.avg_pool2d(
        torch.from_numpy(x),
        tuple(map(int, attrs.pool_size)),
        tuple(map(int, attrs.strides)),
        tuple(map(int, attrs.padding[:2])),
        count_include_pad=False,
    ).numpy()


def _resize2d(expr: relax.Call, x: Array) -> Array:
    aligned = str(expr.attrs.coordinate_transformation_mode) == "align_corners"
    size = TensorSpec.of(expr).shape[2:]
    return torch.nn.functional.interpolate(
        torch.from_numpy(x), size, mode="bilinear", align_corners=aligned
    ).numpy()


FLOAT: dict[str, Callable[..., Array]] = {
    "relax.add": lambda expr, a, b: a + b,
    "relax.multiply": lambda expr, a, b: a * b,
    "relax.matmul": lambda expr, a, b: a @ b,
    "relax.mean": _mean,
    "relax.nn.softmax": _softmax,
    "relax.nn.conv2d": _conv2d,
    "relax.nn.avg_pool2d": _avg_pool2d,
    "relax.image.resize2d": _resize2d,
}
