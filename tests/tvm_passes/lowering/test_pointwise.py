"""Functions of one element: tables of 8-bit codes, segments of 16-bit ones."""

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.tvm_passes.modules import (
    Graph,
    apply_rules,
    assert_close,
    assert_rewrites,
    build,
    operators,
)
from tests.tvm_passes.run_kernel import codes
from tvm_passes.errors import LoweringError
from tvm_passes.lowering.pointwise import lower_pointwise
from tvm_passes.ops.base import call
from tvm_passes.ops.pointwise import FUNCTIONS, LutConfig


def module(function: str, dtype: str, scale: float) -> tvm.IRModule:
    zero_point = {"int8": -20, "uint8": 90, "int16": 0}[dtype]

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        y = graph.pointwise(function, graph.dequantize(x, scale, zero_point))
        return graph.quantize(y, 0.04, -100)

    return build([((1, 700), dtype)], body)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("dtype", "scale"), [("int8", 0.05), ("uint8", 0.05), ("int16", 2e-4)])
def test_functions(function: str, dtype: str, scale: float) -> None:
    before = module(function, dtype, scale)
    after = apply_rules(before, lower_pointwise)
    assert operators(after) == ["pwl8" if dtype == "int16" else "lut"]
    assert_close(before, after, codes(dtype, 1, 700), share=0.02 if dtype != "int16" else 1.0)


def test_a_kink_that_16_bit_lanes_miss_takes_finer_segments() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        y = graph.pointwise("relu6", graph.dequantize(x, 10 / 32767))
        return graph.quantize(y, 6 / 255, -128)

    before = build([((1, 700), "int16")], body)
    after = apply_rules(before, lower_pointwise)
    assert operators(after) == ["pwl"]
    assert_close(before, after, codes("int16", 1, 700), share=1.0)


def test_the_table_holds_every_code_in_order() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        return graph.quantize(graph.pointwise("relu", graph.dequantize(x, 0.5, 10)), 0.25, -5)

    table = np.clip(np.maximum(np.arange(-128, 128) - 10, 0) * 2 - 5, -128, 127).astype(np.int8)
    x = [((3, 3), "int8")]
    after = build(x, lambda graph, x: graph.emit(call("lut", LutConfig("int8"), x, table)))
    assert_rewrites(build(x, body), after, lower_pointwise)


def test_a_scale_per_channel_is_refused() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        real = graph.dequantize(x, [0.1, 0.2], [0, 0], axis=1)
        return graph.quantize(graph.pointwise("silu", real), 1.0, name="act")

    with pytest.raises(LoweringError, match="act: an operand needs one scale"):
        apply_rules(build([((1, 2), "int8")], body), lower_pointwise)
