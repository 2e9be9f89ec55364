"""Run an integer module with the exact NumPy references: the second level of truth."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.lowering.quantized import array_of
from tvm_passes.ops.base import TensorSpec, config_of, operator_of
from tvm_passes.rewrite import MAIN, main_bindings

Array = NDArray[Any]


def _strided_slice(call: relax.Call, x: Array) -> Array:
    axes, begin, end, *stride = ([int(v) for v in arg.fields] for arg in call.args[1:])
    index = [slice(None)] * x.ndim
    for position, axis in enumerate(axes):
        step = stride[0][position] if stride else 1
        index[axis] = slice(begin[position], min(end[position], x.shape[axis]), step)
    return x[tuple(index)]


VIEWS: dict[str, Callable[..., Array]] = {
    "relax.reshape": lambda call, x: x.reshape(TensorSpec.of(call).shape),
    "relax.permute_dims": lambda call, x: x.transpose(
        None if call.attrs.axes is None else [int(axis) for axis in call.attrs.axes]
    ),
    "relax.strided_slice": _strided_slice,
}


def interpret(mod: tvm.IRModule, *inputs: Array) -> Array:
    """Output of an integer module (before kernel selection).

    Args:
        mod: module of integer operators and views.
        inputs: as ``main`` takes them; of a whole network the image.

    Raises:
        LoweringError: the module contains an operator without a reference.
    """
    values: dict[relax.Var, Any] = dict(zip(mod[MAIN].params, inputs, strict=True))

    def value(expr: relax.Expr) -> Any:
        if isinstance(expr, relax.Var):
            return values[expr]
        if isinstance(expr, relax.Tuple):
            return [value(item) for item in expr.fields]
        constant = array_of(expr)
        if constant is not None:
            return constant
        if isinstance(expr, relax.Call):
            return _evaluate(expr, value)
        raise LoweringError(f"no reference for {expr}")

    for binding in main_bindings(mod):
        values[binding.var] = value(binding.value)
    result: Array = value(mod[MAIN].body.body)
    return result


def _evaluate(call: relax.Call, value: Callable[[relax.Expr], Any]) -> Array:
    operator = operator_of(call)
    if operator is not None:
        return operator.reference(config_of(call), *(value(arg) for arg in call.args[:-1]))
    name = str(getattr(call.op, "name", call.op))
    if name == "relax.concat":
        return np.concatenate(value(call.args[0]), int(call.attrs.axis))
    if name in VIEWS:
        return np.ascontiguousarray(VIEWS[name](call, value(call.args[0])))
    raise LoweringError(f"no reference for operator {name}")
