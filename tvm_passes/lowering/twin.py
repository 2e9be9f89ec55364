"""Twin uniform codes become int16 values on the grid of the finer range."""

import numpy as np
from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.lowering.quantized import (
    Quantized,
    is_call,
    is_integer_call,
    one_scale,
    quantized,
)
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import OPERATORS, call, config_of
from tvm_passes.ops.pointwise import FUNCTIONS, LutConfig
from tvm_passes.ops.qdq import DequantizeConfig, QuantizeConfig
from tvm_passes.ops.twin import twin_config, twin_range
from tvm_passes.rewrite import Scope

PROBABILITY = 2.0**-15  # step of int16 probabilities


def lower_twin(scope: Scope, dequantize: relax.Call) -> relax.Expr | None:
    """``dequantize_twin(quantize_twin(f(x)))`` becomes ``dequantize(twin(quantize(f(x))))``.

    The inner codes are int16, and what they are of is lowered like anything else: a softmax, or a
    function of int16 codes, whose codes span the function's own range. A function of 8-bit codes is
    one table of values.
    """
    if not is_integer_call(dequantize, "dequantize_twin"):
        return None
    quantize = scope.producer(dequantize.args[0])
    if not is_integer_call(quantize, "quantize_twin"):
        raise LoweringError(
            "twin codes must be read where they are made, without an operator between"
        )
    config = config_of(quantize)
    try:
        scale = _common_scale(quantize, dequantize)
        values = _values(scope, quantize, scale)
    except LoweringError as error:
        raise LoweringError(f"{config.name}: {error}") from error
    if values is None:
        raise LoweringError(
            f"{config.name}: twin codes of neither a softmax nor a function of codes"
        )
    step = np.array(scale, np.float32), np.array(0, np.int32)
    return call("dequantize", DequantizeConfig(-1), scope.emit(values), *step)


def _common_scale(quantize: relax.Call, dequantize: relax.Call) -> float:
    """The fine step of codes that are read in the format that they are written in."""
    write, read, scale = config_of(quantize), config_of(dequantize), one_scale(quantize)
    form = write.m, write.bits, write.signed
    if form != (read.m, read.bits, read.signed) or scale != one_scale(dequantize):
        raise LoweringError("twin codes are read in another format")
    twin_range(*form)  # or there are no such codes
    return scale


def _values(scope: Scope, quantize: relax.Call, scale: float) -> relax.Call | None:
    config, real = config_of(quantize), quantize.args[0]
    producer = scope.producer(real)
    if is_call(producer, "relax.nn.softmax"):
        return _twin(scope, quantize, scale, PROBABILITY)
    function, inner = "identity", real
    if is_integer_call(producer, "pointwise"):
        function, inner = config_of(producer).function, producer.args[0]
    x = quantized(scope, inner)
    if x is None:
        return None
    exact = _outputs(function, x, config.name)
    if x.spec.dtype != "int16":
        codes = OPERATORS["quantize_twin"].reference(config, exact, np.float64(scale))
        values = OPERATORS["dequantize_twin"].reference(config, codes, np.float64(1.0))
        return call("lut", LutConfig("int16"), x.codes, values.astype(np.int16))
    # beyond the greatest value everything is the same
    greatest = min(float(np.abs(exact).max()), scale * 2.0 ** (config.m + config.bits - 1))
    return _twin(scope, quantize, scale, greatest / 32767.0)


def _outputs(function: str, x: Quantized, name: str) -> np.ndarray:
    """The function of every code that the dtype has."""
    scale, zero_point = x.scalar(name)
    low, high = INT_RANGE[x.spec.dtype]
    return FUNCTIONS[function]((np.arange(low, high + 1.0) - zero_point) * scale)


def _twin(scope: Scope, quantize: relax.Call, scale: float, step: float) -> relax.Call:
    """Values of twin codes by way of int16 codes with ``step``."""
    config, fine = config_of(quantize), np.float32(step)
    inner = QuantizeConfig(-32767, 32767, -1, "int16", config.name)
    zero = np.array(0, np.int32)
    codes = scope.emit(call("quantize", inner, quantize.args[0], np.asarray(fine), zero))
    return call(
        "twin", twin_config(float(fine), scale, config.m, config.bits, config.signed), codes
    )
