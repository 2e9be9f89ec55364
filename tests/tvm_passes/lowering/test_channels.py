"""Factors per channel: within three quarters of a step of the exact value, for every input."""

from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from tests.tvm_passes.modules import Graph, apply_rules, build, float_value, operators
from tests.tvm_passes.run_kernel import codes
from tvm_passes.interpret import interpret
from tvm_passes.lowering.channels import BOUND, lower_channel_factors
from tvm_passes.lowering.elementwise import lower_add, lower_multiply, lower_requantize
from tvm_passes.lowering.normalization import lower_normalize
from tvm_passes.lowering.pointwise import lower_pointwise
from tvm_passes.ops.base import call
from tvm_passes.ops.pointwise import FUNCTIONS
from tvm_passes.ops.qdq import NormalizeConfig

RULES = (
    lower_channel_factors,
    lower_normalize,
    lower_pointwise,
    lower_add,
    lower_multiply,
    lower_requantize,
)
ALL = {
    "int8": np.arange(-128, 128).astype(np.int8).reshape(16, 16),
    "uint8": np.arange(256).astype(np.uint8).reshape(16, 16),
    "int16": np.arange(-32768, 32768).astype(np.int16).reshape(256, 256),
}
ZERO = {"int8": -20, "uint8": 90, "int16": 0}
SCALE, OUT = {"int8": 0.06, "uint8": 0.06, "int16": 8.0 / 32767}, (8.3 / 255, -122)


def factors(octaves: float, count: int = 5) -> np.ndarray:
    """From 1 to ``2^octaves``, with an odd mantissa each."""
    return 2.0 ** (np.linspace(0, octaves, count) + 0.01 * np.arange(count))


def module(
    function: str | None, dtype: str, values: np.ndarray, out: tuple[Any, ...] = OUT
) -> tvm.IRModule:
    """``quantize(f(x) * factors)`` of an NCHW map that holds every code in every channel."""

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        y = graph.dequantize(x, SCALE[dtype], ZERO[dtype])
        y = graph.pointwise(function, y) if function else y
        factor = relax.const(values.reshape(-1, 1, 1).astype(np.float32))
        return graph.quantize(graph.emit(relax.op.multiply(y, factor)), *out, name="act")

    return build([((1, len(values), *ALL[dtype].shape), dtype)], body)


def every(dtype: str, channels: int) -> np.ndarray:
    return np.broadcast_to(ALL[dtype], (1, channels, *ALL[dtype].shape)).copy()


def error(
    function: str | None, dtype: str, values: np.ndarray, got: np.ndarray, out: tuple[Any, ...]
) -> float:
    """Greatest distance of codes from the exact values, in steps."""
    x = (every(dtype, len(values)).astype(np.float64) - ZERO[dtype]) * np.float32(SCALE[dtype])
    real = FUNCTIONS[function or "identity"](x) * values.astype(np.float32).reshape(-1, 1, 1)
    low, high = np.iinfo(got.dtype).min, np.iinfo(got.dtype).max
    low += got.dtype == np.int16
    exact = np.clip(real / np.float64(np.float32(out[0])) + out[1], low, high)
    return float(np.abs(got - exact).max())


@pytest.mark.parametrize(
    ("function", "dtype", "octaves", "expected"),
    [
        ("silu", "int16", 0.5, ["pwl8", "scale_channels"]),
        ("gelu", "int16", 2, ["pwl8", "scale_channels"]),
        ("hardswish", "int16", 2, ["pwl8", "scale_channels"]),
        ("gelu", "int16", 4, ["pwl8", "requantize_channels"]),
        ("gelu", "int16", 5, ["pwl", "requantize_channels"]),
        ("silu", "int16", 10, ["lut", "requantize_channels"]),
        ("gelu", "int16", 20, ["lut", "requantize_channels"]),
        ("gelu", "int8", 3, ["lut", "scale_channels"]),
        ("gelu", "uint8", 20, ["lut", "requantize_channels"]),
        (None, "int16", 3, ["scale_channels"]),
        (None, "int16", 20, ["requantize_channels"]),
        (None, "int8", 3, ["scale_channels"]),
        (None, "uint8", 20, ["requantize_channels"]),
    ],
    ids=str,
)
def test_every_code_is_within_the_bound(
    function: str | None, dtype: str, octaves: float, expected: list[str]
) -> None:
    values = factors(octaves)
    after = apply_rules(module(function, dtype, values), *RULES)
    assert [name for name in operators(after) if name != "permute_dims"] == expected
    got = interpret(after, every(dtype, len(values)))
    assert got.dtype == np.int8 and len(np.unique(got)) > 100
    assert error(function, dtype, values, got, OUT) <= BOUND + 1e-6


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(["gelu", "silu", "sigmoid", None]),
    st.lists(st.floats(-4, 4), min_size=2, max_size=3, unique=True),
    st.booleans(),
)
def test_any_factors(function: str | None, exponents: list[float], negative: bool) -> None:
    values = 2.0 ** np.array(exponents)
    values[0] *= -1 if negative else 1
    out = (0.11, 3)
    after = apply_rules(module(function, "int16", values, out), *RULES)
    got = interpret(after, every("int16", len(values)))
    assert error(function, "int16", values, got, out) <= BOUND + 1e-6


def test_16_bit_outputs_and_a_channel_that_vanishes() -> None:
    values, out = np.array([0.0, 0.3, 1.0]), (3e-4, 0, "int16")
    after = apply_rules(module(None, "int16", values, out), *RULES)
    got = interpret(after, every("int16", 3))
    assert operators(after) == ["permute_dims", "requantize_channels", "permute_dims"]
    assert not got[0, 0].any() and error(None, "int16", values, got, out) <= 0.501


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("shape", "moved"), [((6,), 0), ((1, 1, 6), 0), ((4, 1), 2)])
def test_factors_lie_along_any_axis(shape: tuple[int, ...], moved: int, first: bool) -> None:
    values = relax.const(np.linspace(0.4, 3, np.prod(shape)).reshape(shape).astype(np.float32))

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        real = graph.pointwise("gelu", graph.dequantize(x, 1e-4))
        pair = (values, real) if first else (real, values)
        return graph.quantize(graph.emit(relax.op.multiply(*pair)), 0.03, -100)

    before = build([((1, 4, 6), "int16")], body)
    after = apply_rules(before, *RULES)
    assert operators(after).count("permute_dims") == moved
    x = codes("int16", 1, 4, 6)
    assert np.abs(interpret(after, x).astype(int) - float_value(before, x)).max() <= 1


@pytest.mark.parametrize(("octaves", "middle"), [(1, "int16"), (9, "int32")])
def test_normalized_channels(octaves: float, middle: str) -> None:
    values = factors(octaves, 48)[None]

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        real = call("normalize", NormalizeConfig(1, 1e-5), graph.dequantize(x, 0.02, 5))
        factor = relax.const(values.astype(np.float32))
        y = graph.emit(relax.op.multiply(graph.emit(real), factor))
        return graph.quantize(y, 0.03, 3)

    before = build([((1, 6, 48), "int8")], body)
    after = apply_rules(before, *RULES)
    assert operators(after)[0] == "layer_norm" and "channels" in operators(after)[1]
    assert middle in str(after["main"].body.blocks[0].bindings[0].var.ty)
    x = codes("int8", 1, 6, 48)
    difference = interpret(after, x).astype(int) - float_value(before, x)
    assert np.abs(difference).max() <= 1 and np.mean(difference != 0) < 0.2


@pytest.mark.parametrize("octaves", [1, 9])
def test_normalized_channels_with_a_shift(octaves: float) -> None:
    values, shift = factors(octaves, 48), np.linspace(-2, 3, 48)

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        real = call("normalize", NormalizeConfig(1, 1e-5), graph.dequantize(x, 0.02, 5))
        factor, constant = (relax.const(part.astype(np.float32)) for part in (values, shift))
        y = graph.emit(relax.op.multiply(graph.emit(real), factor))
        return graph.quantize(graph.emit(relax.op.add(y, constant)), 0.03, 3)

    before = build([((1, 6, 48), "int8")], body)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["layer_norm", "requantize_channels", "add"]
    x = codes("int8", 1, 6, 48)
    difference = interpret(after, x).astype(int) - float_value(before, x)
    assert np.abs(difference).max() <= 1 and np.mean(difference != 0) < 0.1


def test_a_factor_per_element_stays_a_product() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        factor = relax.const(np.linspace(0.5, 2, 24).reshape(1, 4, 6).astype(np.float32))
        y = graph.emit(relax.op.multiply(graph.dequantize(x, 0.05, 9), factor))
        return graph.quantize(y, 0.1)

    assert operators(apply_rules(build([((1, 4, 6), "int8")], body), *RULES)) == ["mul"]
