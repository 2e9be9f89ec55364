"""AdaLog codes: made from a non-linear function, and read by a product."""

import numpy as np
from tvm import relax

from tvm_passes.lowering.quantized import Quantized, is_integer_call, one_scale, quantized
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.adalog import adalog_quantize_config
from tvm_passes.ops.base import OPERATORS, call, config_of
from tvm_passes.ops.pointwise import FUNCTIONS, WEIGHT_MAX, LutConfig, adalog_table
from tvm_passes.ops.pwl import pwl_tables
from tvm_passes.rewrite import Scope


def operand(scope: Scope, expr: relax.Expr, greatest: int = WEIGHT_MAX) -> Quantized | None:
    """``expr`` as integer codes for a product, or None if it is not dequantized.

    AdaLog codes go through the table of their fixed-point values (int16); the shift of a
    reparameterized activation remains as ``Quantized.offset``, to be folded in the bias. Code 0
    becomes ``greatest``, which a long sum of products has to keep small.
    """
    uniform = quantized(scope, expr)
    if uniform is not None:
        return uniform
    producer = scope.producer(expr)
    if not is_integer_call(producer, "dequantize_log"):
        return None
    config = config_of(producer)
    table, unit = adalog_table(config.q, config.r, config.bits, greatest)
    values = scope.emit(call("lut", LutConfig("int16"), producer.args[0], table))
    scale = np.array(one_scale(producer) * unit)
    return Quantized(values, scale, np.array(0), offset=-config.shift)


def lower_quantize_log(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize_log(f(dequantize(x)))``: one table for int8, segments then a logarithm for int16.

    The intermediate of an int16 input has int16 codes over the function's own range.
    """
    if not is_integer_call(quantize, "quantize_log"):
        return None
    pointwise = scope.producer(quantize.args[0])
    if not is_integer_call(pointwise, "pointwise"):
        return None
    x = quantized(scope, pointwise.args[0])
    if x is None:
        return None
    config, function = config_of(quantize), config_of(pointwise).function
    scale, zero_point = x.scalar(config.name)
    low, high = INT_RANGE[x.spec.dtype]
    values = FUNCTIONS[function]((np.arange(low, high + 1.0) - zero_point) * scale)
    if x.spec.dtype == "int8":
        scales = np.float32(one_scale(quantize))
        table = OPERATORS["quantize_log"].reference(config, values, scales)
        return call("lut", LutConfig("uint8"), x.codes, table)
    middle = float(np.abs(values).max()) / 32767.0
    fitted = pwl_tables(function, scale, middle, 0, -32767, 32767, "int16")
    fine = scope.emit(call("pwl", fitted.config, x.codes, fitted.slope, fitted.base))
    encode = adalog_quantize_config(
        middle, 0, one_scale(quantize), config.q, config.r, config.bits, config.shift
    )
    return call("adalog_quantize", encode, fine)
