"""Dynamic ReLU becomes one integer operator."""

import pytest
import tvm
from tvm import relax

from tests.tvm_passes.modules import Graph, apply_rules, assert_close, build, operators
from tests.tvm_passes.run_kernel import codes
from tvm_passes.errors import LoweringError
from tvm_passes.lowering.dynamic_relu import lower_dynamic_relu
from tvm_passes.ops.base import call
from tvm_passes.ops.dynamic_relu import GATE_SCALE
from tvm_passes.ops.qdq import FloatDynamicReluConfig

SHAPES = [((1, 6, 4, 5), "int16"), ((1, 6, 1, 1), "int16"), ((1, 6, 1, 1), "int16")]


def module(gate_scale: float = GATE_SCALE) -> tvm.IRModule:
    def body(graph: Graph, x: relax.Var, *gates: relax.Var) -> relax.Expr:
        real = [graph.dequantize(x, 2e-4), *(graph.dequantize(gate, gate_scale) for gate in gates)]
        y = graph.emit(call("float_dynamic_relu", FloatDynamicReluConfig(), *real))
        return graph.quantize(y, 0.06, -9, name="act")

    return build(SHAPES, body)


def test_codes_follow_the_float_operator() -> None:
    after = apply_rules(module(), lower_dynamic_relu)
    assert operators(after) == ["dynamic_relu"]
    x, first, second = (codes(dtype, *shape) for shape, dtype in SHAPES)
    assert_close(module(), after, x, first & 0x7FFF, second[:, ::-1] & 0x7FFF, share=0.02)


def test_gates_of_another_format_are_refused() -> None:
    with pytest.raises(LoweringError, match="act: gates must be int16"):
        apply_rules(module(1e-3), lower_dynamic_relu)
