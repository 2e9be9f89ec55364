"""What follows a product joins it, when nobody else needs what lies between."""

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax

from tests.tvm_passes.graph.networks import assert_same
from tests.tvm_passes.modules import apply_rules, build, configs, operators
from tests.tvm_passes.run_kernel import codes
from tvm_passes.graph.fuse import fuse_epilogue
from tvm_passes.ops.add import add_config
from tvm_passes.ops.base import call
from tvm_passes.ops.channels import requantize_channels_config, scale_channels_config
from tvm_passes.ops.dynamic_relu import dynamic_relu_config
from tvm_passes.ops.elementwise import requantize_config
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig
from tvm_passes.ops.pad import PadConfig
from tvm_passes.ops.pwl import pwl_tables
from tvm_passes.ops.pwl8 import pwl8_lines, pwl8_tables

LINEAR = LinearConfig(0, 0, -32768, 32767, "int16")
CONV = Conv2dConfig(**vars(LINEAR), strides=(1, 1), dilation=(1, 1), groups=1)
SILU = pwl8_tables("silu", 8 / 32767, 8.28 / 255, -120, -128, 127, "int8")
ADD = add_config(0.5, 0, 0.25, 0, 200.0, 1, -128, 127, "int8", "int16", "int16")
NARROW = requantize_config(0.01, 0, 1.0, 0, -128, 127, "int8")
PAD = PadConfig((1, 1), (1, 1), -120)
Emit = Callable[[relax.Expr], relax.Var]


def parameters(channels: int) -> list[np.ndarray]:
    bias = np.arange(channels, dtype=np.int32)[None]
    return [bias, np.full(channels, 2**28, np.int32)]


def linear(x: relax.Expr, channels: int = 6) -> relax.Call:
    depth = int(x.ty.shape[-1])
    return call("linear", LINEAR, x, codes("int8", channels, depth), *parameters(channels))


def conv(x: relax.Expr, channels: int = 6) -> relax.Call:
    w = codes("int8", channels, 3, 3, int(x.ty.shape[-1]))
    return call("conv2d", CONV, x, w, *parameters(channels))


def silu(x: relax.Expr) -> relax.Call:
    return call("pwl8", SILU.config, x, SILU.slope, SILU.base)


def fused(
    inputs: list[tuple[tuple[int, ...], str]], body: Callable[..., relax.Expr]
) -> tuple[list[str], list[str], tvm.IRModule]:
    """Operators and steps of the last fused one after the pass, proved to compute the same."""
    before = build(inputs, lambda graph, *x: body(graph.emit, *x))
    after = apply_rules(before, fuse_epilogue)
    assert_same(before, after)
    found = [config.steps for config in configs(after, "fused")]
    return operators(after), [step.operator for step in found[-1]] if found else [], after


def test_an_activation_joins_a_linear_layer() -> None:
    names, steps, _ = fused([((3, 8), "int8")], lambda emit, x: silu(emit(linear(x))))
    assert (names, steps) == (["fused"], ["linear", "pwl8"])


def test_factors_of_channels_join_a_linear_layer_behind_their_activation() -> None:
    lines, unit = pwl8_lines("silu", 8 / 32767, 8.0, 64)
    made = scale_channels_config(np.linspace(10, 20, 6) * unit, "int16", 0, 3, -128, 127, "int8")
    assert made is not None
    exact = requantize_channels_config(np.linspace(1, 900, 6), "int8", 3, 0, -32767, 32767, "int16")

    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        y = emit(call("pwl8", lines.config, emit(linear(x)), lines.slope, lines.base))
        y = emit(call("scale_channels", made[0], y, made[1]))
        return call("requantize_channels", exact[0], y, *exact[1:])

    names, steps, _ = fused([((3, 8), "int8")], body)
    assert names == ["fused"]
    assert steps == ["linear", "pwl8", "scale_channels", "requantize_channels"]


def test_a_table_with_as_many_entries_as_the_output_stays_a_table() -> None:
    silu_of_64 = pwl_tables("silu", 8 / 32767, 8.28 / 32767, 0, -32767, 32767, "int16")
    size = silu_of_64.slope.size

    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return call("pwl", silu_of_64.config, emit(linear(x, size)), *tables)

    tables = silu_of_64.slope, silu_of_64.base
    names, steps, _ = fused([((1, 1, 8), "int8")], body)
    assert (names, steps) == (["fused"], ["linear", "pwl"])


def test_a_dynamic_relu_joins_with_gates_that_are_computed() -> None:
    relu = dynamic_relu_config(0.01, 0, 0.5, 0, -128, 127, "int8", "int16")

    def body(emit: Emit, x: relax.Var, first: relax.Var, second: relax.Var) -> relax.Expr:
        return call("dynamic_relu", relu, emit(conv(x)), first, second)

    gates = [((1, 1, 1, 6), "int16")] * 2
    names, steps, _ = fused([((1, 5, 5, 4), "int8"), *gates], body)
    assert (names, steps) == (["fused"], ["conv2d", "dynamic_relu"])


def test_an_activation_and_a_pad_join_a_convolution() -> None:
    names, steps, _ = fused(
        [((1, 5, 5, 4), "int8")],
        lambda emit, x: call("pad", PAD, emit(silu(emit(conv(x))))),
    )
    assert (names, steps) == (["fused"], ["conv2d", "pwl8", "pad"])


def test_a_residual_sum_joins_either_operand() -> None:
    inputs = [((1, 3, 8), "int8"), ((1, 3, 6), "int16")]
    for swap in (False, True):

        def body(emit: Emit, x: relax.Var, skip: relax.Var, swap: bool = swap) -> relax.Expr:
            pair = (skip, emit(linear(x))) if swap else (emit(linear(x)), skip)
            return call("add", ADD, *pair)

        names, steps, _ = fused(inputs, body)
        assert (names, steps) == (["fused"], ["linear", "add"])


def test_a_sum_behind_a_reshape_joins_too() -> None:
    def body(emit: Emit, x: relax.Var, skip: relax.Var) -> relax.Expr:
        return call("add", ADD, emit(relax.op.reshape(emit(linear(x)), (2, 3, 6))), skip)

    names, steps, _ = fused([((1, 6, 8), "int8"), ((2, 3, 6), "int16")], body)
    assert "add" not in names
    assert steps == ["linear", "add"]


def test_what_somebody_else_reads_is_kept() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        product = emit(linear(x))
        narrow = emit(call("requantize", NARROW, product))
        wide = emit(linear(narrow))
        return call("add", ADD, wide, product)

    names, steps, _ = fused([((3, 8), "int8")], body)
    assert names == ["linear", "requantize", "fused"]
    assert steps == ["linear", "add"]


def test_nothing_follows_a_pad() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        padded = emit(call("pad", PadConfig((1, 1), (1, 1), 0), emit(conv(x))))
        return call("requantize", NARROW, padded)

    names, steps, _ = fused([((1, 5, 5, 4), "int8")], body)
    assert names == ["fused", "requantize"]
    assert steps == ["conv2d", "pad"]


def test_factors_of_a_single_row_stay_a_vector() -> None:
    made = requantize_channels_config(np.linspace(1, 9, 6), "int16", 3, 0, -128, 127, "int8")

    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return call("requantize_channels", made[0], emit(linear(x)), *made[1:])

    _, steps, _ = fused([((1, 1, 8), "int8")], body)
    assert steps == ["linear", "requantize_channels"]
