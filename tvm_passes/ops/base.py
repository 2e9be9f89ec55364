"""Integer operators of Relax: the registry, and how a call carries its configuration.

An integer operator is a Relax operator ``R.pocketvit.<name>(tensor, ..., R.str(config))``. Its
configuration is a frozen dataclass, printed as JSON, so that every intermediate module is plain,
parseable TVMScript. One registration gives the type inference and the exact NumPy reference;
kernels are registered apart, by the same name (``tvm_passes.kernels.registry``).
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import tvm
import tvm.ir.op
import tvm.relax.script as relax_script
from numpy.typing import NDArray
from tvm import relax

from tvm_passes.errors import LoweringError

PREFIX = "relax.pocketvit."


@dataclass(frozen=True)
class TensorSpec:
    """Static shape and dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, expr: relax.Expr) -> "TensorSpec":
        """The spec of a normalised Relax tensor expression."""
        return cls(tuple(int(extent) for extent in expr.ty.shape), str(expr.ty.dtype))


@dataclass(frozen=True)
class Operator:
    """One integer operator.

    Attributes:
        name: short name, ``R.pocketvit.<name>``.
        config: frozen dataclass type of its configuration.
        infer: ``(config, input specs) -> output spec``.
        reference: ``(config, *arrays) -> array``, exact NumPy int64 arithmetic inside.
    """

    name: str
    config: type[Any]
    infer: Callable[..., TensorSpec]
    reference: Callable[..., NDArray[Any]]


OPERATORS: dict[str, Operator] = {}


def register(operator: Operator) -> Operator:
    """Make ``operator`` known to Relax, its script parser and the interpreter."""
    full_name = PREFIX + operator.name
    tvm.ir.op._ffi_api.RegisterOp(full_name, "")

    def infer_type(call: relax.Call, context: object) -> tvm.ir.Type:
        del context
        spec = operator.infer(config_of(call), [TensorSpec.of(arg) for arg in call.args[:-1]])
        return relax.TensorType(spec.shape, spec.dtype)

    tvm.ir.register_op_attr(full_name, "FInferType", infer_type)
    tvm.ir.register_op_attr(full_name, "FPurity", True)

    def build(*args: relax.Expr) -> relax.Call:
        return relax.Call(tvm.ir.Op.get(full_name), list(args))

    setattr(_script_namespace(), operator.name, build)
    OPERATORS[operator.name] = operator
    return operator


def call(name: str, config: Any, *args: relax.Expr | NDArray[Any]) -> relax.Call:
    """A call of integer operator ``name``; NumPy arrays become Relax constants."""
    tensors = [relax.const(arg) if isinstance(arg, np.ndarray) else arg for arg in args]
    return relax.Call(tvm.ir.Op.get(PREFIX + name), [*tensors, tvm.ir.StringImm(encode(config))])


def encode(config: Any) -> str:
    """A configuration as JSON."""
    return json.dumps(dataclasses.asdict(config), sort_keys=True)


def decode(name: str, text: str) -> Any:
    """The configuration of operator ``name`` that ``encode`` wrote."""
    values = json.loads(text)
    return OPERATORS[name].config(**{key: _frozen(value) for key, value in values.items()})


def operator_of(expr: relax.Expr) -> Operator | None:
    """The integer operator that ``expr`` calls, or None."""
    if not isinstance(expr, relax.Call) or not isinstance(expr.op, tvm.ir.Op):
        return None
    name = str(expr.op.name)
    return OPERATORS.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None


def config_of(expr: relax.Call) -> Any:
    """The configuration of an integer operator's call."""
    operator = operator_of(expr)
    if operator is None:
        raise LoweringError(f"{expr.op} is not an integer operator")
    return decode(operator.name, str(expr.args[-1].value))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _script_namespace() -> SimpleNamespace:
    """``R.pocketvit`` of TVMScript, made on first use."""
    if not hasattr(relax_script, "pocketvit"):
        relax_script.pocketvit = SimpleNamespace()
        relax_script.parser.pocketvit = relax_script.pocketvit  # what ``from_source`` calls R
    namespace: SimpleNamespace = relax_script.pocketvit
    return namespace


def same_as(index: int = 0) -> Callable[[Any, Sequence[TensorSpec]], TensorSpec]:
    """Type inference of an operator whose output has the shape of one input.

    The output dtype is the configuration's ``dtype``.
    """
    return lambda config, specs: TensorSpec(specs[index].shape, config.dtype)
