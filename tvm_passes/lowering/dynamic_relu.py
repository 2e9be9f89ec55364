"""Dynamic ReLU with computed gates."""

from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.lowering.quantized import is_integer_call, output_format, quantized
from tvm_passes.ops.base import call
from tvm_passes.ops.dynamic_relu import GATE_SCALE, dynamic_relu_config
from tvm_passes.rewrite import Scope


def lower_dynamic_relu(scope: Scope, quantize: relax.Call) -> relax.Expr | None:
    """``quantize(float_dynamic_relu(dequantize(x), dequantize(g), dequantize(h)))``.

    Raises:
        LoweringError: a gate has another format than int16 with scale ``2^-15``.
    """
    if not is_integer_call(quantize, "quantize"):
        return None
    relu = scope.producer(quantize.args[0])
    if not is_integer_call(relu, "float_dynamic_relu"):
        return None
    x, *gates = (quantized(scope, argument) for argument in relu.args[:-1])
    if x is None:
        return None
    target = output_format(quantize)
    codes = []
    for gate in gates:
        if gate is None or gate.spec.dtype != "int16" or gate.scalar("gate") != (GATE_SCALE, 0):
            raise LoweringError(f"{target.name}: gates must be int16 with scale 2^-15")
        codes.append(gate.codes)
    config = dynamic_relu_config(
        *x.scalar(target.name),
        target.scale,
        target.zero_point,
        target.qmin,
        target.qmax,
        target.dtype,
        x.spec.dtype,
    )
    return call("dynamic_relu", config, x.codes, *codes)
