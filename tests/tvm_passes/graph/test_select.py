"""Kernels are chosen, shared, and get their constants packed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from tests.tvm_passes.modules import Graph, apply_rules, build
from tests.tvm_passes.product_calls import product_calls
from tests.tvm_passes.run_kernel import codes
from tvm_passes.errors import LoweringError
from tvm_passes.graph.fuse import fuse_epilogue
from tvm_passes.graph.select import chosen, select_kernels
from tvm_passes.interpret import interpret
from tvm_passes.kernels.choices import Choices
from tvm_passes.kernels.isa import ISAS
from tvm_passes.lowering.quantized import array_of, is_call
from tvm_passes.ops.base import TensorSpec, call
from tvm_passes.ops.elementwise import requantize_config
from tvm_passes.ops.gemm import LinearConfig
from tvm_passes.ops.pad import PadConfig
from tvm_passes.rewrite import main_bindings

PORTABLE = ISAS["portable"]
CALLS = product_calls("linear", LinearConfig, (1, 3, 5), (5, 5), ("int8", "int8"))
CONFIG: LinearConfig = CALLS[0][1]


def chain(*configs: LinearConfig) -> tvm.IRModule:
    """Linear layers of one shape, with different weights."""

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        for index, config in enumerate(configs):
            x = graph.emit(call("linear", config, x, *CALLS[index % len(CALLS)][2][1:]))
        return x

    return build([((1, 3, 5), "int8")], body)


def kernels(mod: tvm.IRModule) -> list[str]:
    return [
        name.name_hint
        for name, function in mod.functions_items()
        if isinstance(function, tirx.PrimFunc)
    ]


def run(mod: tvm.IRModule, x: Any) -> Any:
    """The result of ``main``, its kernels called one by one."""
    functions = {
        name: function
        for name, function in mod.functions_items()
        if isinstance(function, tirx.PrimFunc)
    }
    library = tvm.compile(tvm.IRModule(functions), target=tvm.target.Target({"kind": "llvm"}))
    values: dict[relax.Expr, Any] = {mod["main"].params[0]: x}
    for binding in main_bindings(mod):
        out, value = TensorSpec.of(binding.var), binding.value
        if isinstance(value, relax.Var):
            values[binding.var] = values[value]
        elif is_call(value, "relax.reshape"):
            values[binding.var] = values[value.args[0]].reshape(out.shape)
        else:
            tensors = [array_of(item) for item in value.args[1].fields]
            arguments = [
                tvm.runtime.tensor(values[item] if array is None else array)
                for item, array in zip(value.args[1].fields, tensors, strict=True)
            ]
            result = tvm.runtime.tensor(np.empty(out.shape, out.dtype))
            library[value.args[0].name_hint](*arguments, result)
            values[binding.var] = result.numpy()
    return values[mod["main"].body.body]


def test_equal_operators_on_equal_shapes_share_a_kernel() -> None:
    assert len(kernels(select_kernels(chain(CONFIG, CONFIG, CONFIG), PORTABLE))) == 1
    other = replace(CONFIG, zero_point=9)
    assert len(kernels(select_kernels(chain(CONFIG, other, CONFIG), PORTABLE))) == 2


def test_kernels_compute_what_the_references_do() -> None:
    mod = chain(CONFIG, replace(CONFIG, zero_point=-3), CONFIG)
    x = codes("int8", 1, 3, 5)
    np.testing.assert_array_equal(run(select_kernels(mod, PORTABLE), x), interpret(mod, x))


def test_constants_are_packed_for_the_instruction_set() -> None:
    def packed(isa: str) -> list[tuple[int, ...]]:
        selected = select_kernels(chain(CONFIG), ISAS[isa])
        (expr,) = [b.value for b in main_bindings(selected) if isinstance(b.value, relax.Call)]
        arrays = [array_of(item) for item in expr.args[1].fields]
        return [array.shape for array in arrays if array is not None]

    # 5 channels in blocks of the lanes; 5 codes in groups of four for the dot product
    assert packed("portable") == [(5 * 8,), (8,), (8,)]
    assert packed("neon-dotprod") == [(8 * 8,), (8,), (8,)]
    assert packed("avx512vnni") == [(8 * 16,), (16,), (16,)]


def test_a_choice_takes_fused_calls_apart() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        _, config, arrays = CALLS[0]
        wide = replace(config, dtype="int16", qmin=-32768, qmax=32767, zero_point=0)
        y = graph.emit(call("linear", wide, x, *arrays[1:]))
        narrow = requantize_config(0.1, 0, 1.0, 3, -128, 127, "int8")
        return graph.emit(call("requantize", narrow, y))

    mod = apply_rules(build([((1, 3, 5), "int8")], body), fuse_epilogue)
    fused = select_kernels(mod, PORTABLE)
    (name,) = chosen(fused, PORTABLE).kernels
    apart = select_kernels(mod, PORTABLE, Choices("portable", apart=(name,)))
    assert (len(kernels(fused)), len(kernels(apart))) == (1, 2)
    assert chosen(apart, PORTABLE).apart == (name,)
    assert len(kernels(select_kernels(mod, PORTABLE, Choices("avx2", apart=(name,))))) == 1
    x = codes("int8", 1, 3, 5)
    np.testing.assert_array_equal(run(apart, x), run(fused, x))


def test_a_kernel_is_chosen_by_the_width_of_its_weights() -> None:
    """Equal layers share a kernel only where their weights are stored alike."""
    _, config, arrays = product_calls("linear", LinearConfig, (1, 3, 64), (64, 64), ("int8",) * 2)[
        0
    ]
    rng = np.random.default_rng(0)

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        for bits in (8, 4, 4, 6):
            top = (1 << (bits - 1)) - 1
            w = rng.integers(-top, top + 1, (64, 64)).astype(np.int8)
            x = graph.emit(call("linear", config, x, w, *arrays[2:]))
        return x

    mod = build([((1, 3, 64), "int8")], body)
    selected = select_kernels(mod, PORTABLE)
    assert len(kernels(selected)) == 3
    names = " ".join(chosen(selected, PORTABLE).kernels)
    assert all(f"{dtype}[64,64]" in names for dtype in ("int8", "int6", "int4"))
    x = codes("int8", 1, 3, 64)
    np.testing.assert_array_equal(run(selected, x), interpret(mod, x))


def test_views_that_move_data_get_kernels_and_reshapes_do_not() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        turned = graph.emit(relax.op.permute_dims(x, [0, 2, 1]))
        cut = graph.emit(relax.op.strided_slice(turned, [1], [1], [4]))
        both = graph.emit(relax.op.concat([cut, turned], 1))
        return graph.emit(relax.op.reshape(both, (24,)))

    mod = build([((1, 3, 5), "int8")], body)
    selected = select_kernels(mod, PORTABLE)
    assert len(kernels(selected)) == 3
    x = codes("int8", 1, 3, 5)
    np.testing.assert_array_equal(run(selected, x), interpret(mod, x))


def test_an_operator_without_a_kernel_is_named() -> None:
    mod = build([((1, 3), "int8")], lambda graph, x: graph.dequantize(x, 1.0))
    with pytest.raises(LoweringError, match="operator dequantize has no kernel"):
        select_kernels(mod, PORTABLE)


def test_a_kernel_keeps_what_its_operator_was() -> None:
    """Names begin with the operator's, for profiles."""
    mod = build(
        [((1, 3, 3, 2), "int8")],
        lambda graph, x: graph.emit(call("pad", PadConfig((1, 1), (1, 1), 4), x)),
    )
    assert kernels(select_kernels(mod, PORTABLE))[0].startswith("pad")
