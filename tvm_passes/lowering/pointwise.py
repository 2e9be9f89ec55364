"""Non-linear functions of one element: a table for 8-bit codes, straight segments for int16."""

from tvm import relax

from tvm_passes.lowering.quantized import (
    Quantized,
    is_integer_call,
    output_format,
    quantized,
)
from tvm_passes.ops.base import call, config_of
from tvm_passes.ops.pointwise import LutConfig, lut_table
from tvm_passes.ops.pwl import pwl_tables
from tvm_passes.ops.pwl8 import pwl8_tables
from tvm_passes.rewrite import Scope

HALF_STEP = 0.5  # lines that are further off would change codes by more than rounding does


def lower_pointwise(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(f(dequantize(x)))`` becomes ``lut``, ``pwl8`` or ``pwl``."""
    if not is_integer_call(quantize, "quantize"):
        return None
    match = _function_of(scope, quantize)
    if match is None:
        return None
    function, x = match
    target = output_format(quantize)
    output = (target.scale, target.zero_point, target.qmin, target.qmax, target.dtype)
    scale, zero_point = x.scalar(target.name)
    if x.spec.dtype == "int16":
        if target.dtype == "int8":
            lines = pwl8_tables(function, scale, *output)
            if lines.error < HALF_STEP:
                return call("pwl8", lines.config, x.codes, lines.slope, lines.base)
        tables = pwl_tables(function, scale, *output)
        return call("pwl", tables.config, x.codes, tables.slope, tables.base)
    table = lut_table(function, scale, zero_point, *output, in_dtype=x.spec.dtype)
    return call("lut", LutConfig(target.dtype), x.codes, table)


def _function_of(scope: Scope, quantize: relax.Call) -> tuple[str, Quantized] | None:
    """The function under a quantizer, and its operand."""
    pointwise = scope.producer(quantize.args[0])
    if not is_integer_call(pointwise, "pointwise"):
        return None
    x = quantized(scope, pointwise.args[0])
    return None if x is None else (config_of(pointwise).function, x)
