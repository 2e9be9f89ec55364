"""Layers are matched with operators, and operators with their products."""

import numpy as np
import tvm
from rich.console import Console
from tvm import relax

import tvm_passes.ops  # noqa: F401  registers the operators
from scripts.benchmark.layer_report import LayerRow, kind_table, layer_table
from scripts.benchmark.layers import match_layers
from scripts.benchmark.macs import OperatorWork, count_operators
from tvm_passes.ops.base import call
from tvm_passes.ops.matmul import MatmulConfig


def _work(*operators: str) -> list[OperatorWork]:
    return [OperatorWork(name, index, (1,)) for index, name in enumerate(operators)]


def test_layers_follow_their_operators() -> None:
    work = _work("pad", "conv2d", "linear", "conv2d")
    names = ["pad_0", "conv2d_1", "transpose", "linear_2", "conv2d_1"]
    assert match_layers(names, work) == [work[0], work[1], None, work[2], work[3]]


def test_a_layer_of_several_operators_leaves_the_others_alone() -> None:
    work = _work("conv2d", "add", "layer_norm", "linear")
    names = ["conv2d_add_0", "layer_norm_1", "linear_2"]
    assert match_layers(names, work) == [None, work[2], work[3]]


def test_products_are_counted_by_the_reference() -> None:
    config = MatmulConfig(True, 0, 0, True, 0, 0, 0, 0, 0, "int32")
    builder = relax.BlockBuilder()
    a = relax.Var("a", relax.TensorType((2, 3, 5), "int8"))
    with builder.function("main", [a]):
        with builder.dataflow():
            b = np.ones((2, 7, 5), np.int8)
            result = builder.emit_output(call("matmul", config, a, b))
        builder.emit_func_output(result)
    module: tvm.IRModule = builder.get()
    assert count_operators(module) == [OperatorWork("matmul", 2 * 3 * 5 * 7, (2, 3, 7))]
    assert count_operators(module)[0].macs == 210  # nothing is left behind


def test_tables_sum_up_kinds_and_sort_nothing_away() -> None:
    rows = [
        LayerRow("conv2d_3", 30.0, 6_000_000, (1, 8)),
        LayerRow("transpose1", 15.0, None, None),
        LayerRow("conv2d_0", 5.0, 1_000_000, (1, 8)),
    ]
    console = Console(width=120)
    with console.capture() as capture:
        console.print(kind_table("net", rows), layer_table(rows, top=2))
    lines = capture.get().splitlines()
    found = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert found == [
        ["conv2d", "2", "35.0", "70.0%", "7.00", "200.0"],
        ["transpose", "1", "15.0", "30.0%", "", ""],
        ["conv2d_3", "1x8", "30.0", "60.0%", "6.00", "200.0"],
        ["transpose1", "?", "15.0", "30.0%", "?", ""],
    ]
    assert "net: 3 layers, 0.05 ms, 7 MMAC matched" in capture.get()
