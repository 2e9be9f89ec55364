"""Refuse a network that is not integer-only, naming the operator that breaks it."""

import re

import tvm
from tvm import relax, tirx

from tvm_passes.errors import LoweringError
from tvm_passes.lowering.quantized import is_integer_call
from tvm_passes.ops.base import config_of
from tvm_passes.rewrite import main_bindings

QUANTIZERS = ("quantize", "quantize_log", "quantize_twin")
FLOAT = re.compile(r"^.*\b(?:bfloat|float)\d+.*$", re.MULTILINE)


def verify_integer(mod: tvm.IRModule) -> tvm.IRModule:
    """Check that every tensor of ``main`` and every expression of its kernels is an integer.

    Raises:
        LoweringError: names the first float operator and the PyTorch module that it belongs to.
    """
    bindings = main_bindings(mod)
    for position, binding in enumerate(bindings):
        if str(getattr(binding.var.ty, "dtype", "int")).startswith(("float", "bfloat")):
            operator = str(getattr(getattr(binding.value, "op", None), "name", binding.value))
            where = _consumer_name(bindings[position:])
            raise LoweringError(
                f"operator {operator.removeprefix('relax.')} before tensor {where} was not "
                "lowered to integers"
            )
    for name, function in mod.functions_items():
        if isinstance(function, tirx.PrimFunc):
            _verify_kernel(name.name_hint, function)
    return mod


def _consumer_name(bindings: list[relax.VarBinding]) -> str:
    """Name of the nearest quantizer that depends on the first binding."""
    reached = {bindings[0].var}
    for binding in bindings:
        value = binding.value
        arguments = list(value.args) if isinstance(value, relax.Call) else []
        nested = [item for arg in arguments if isinstance(arg, relax.Tuple) for item in arg.fields]
        if binding.var in reached or any(
            isinstance(arg, relax.Var) and arg in reached for arg in [*arguments, *nested]
        ):
            if any(is_integer_call(value, name) for name in QUANTIZERS):
                return str(config_of(value).name)
            reached.add(binding.var)
    return "output"


def _verify_kernel(name: str, function: tirx.PrimFunc) -> None:
    found = FLOAT.search(function.script())
    if found:
        raise LoweringError(f"kernel {name} computes in floating point: {found[0].strip()}")
