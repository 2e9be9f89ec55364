"""What the rules read off the graph."""

from typing import Any

import numpy as np
import pytest
from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.lowering.quantized import (
    Format,
    Quantized,
    array_of,
    code_range,
    compressed,
    constant_of,
    origin,
    output_format,
    quantized,
)
from tvm_passes.ops.base import TensorSpec, call
from tvm_passes.ops.matmul import MatmulConfig
from tvm_passes.ops.pointwise import LutConfig
from tvm_passes.ops.qdq import DequantizeConfig, QuantizeConfig
from tvm_passes.rewrite import Scope

X = relax.Var("x", relax.TensorType((2, 3), "int8"))
TARGET = Format(0.5, 3, -128, 127, "int8", "fc")


def scope() -> Scope:
    return Scope(relax.BlockBuilder())


def test_codes_are_found_through_variables() -> None:
    with (frame := scope()).builder.function("main", [X]):
        with frame.builder.dataflow():
            arrays = np.array(0.25, np.float32), np.array(-7, np.int32)
            real = frame.emit(call("dequantize", DequantizeConfig(-1), X, *arrays))
            alias = frame.emit(real)
            found = quantized(frame, alias)
            frame.builder.emit_output(alias)
        frame.builder.emit_func_output(alias)
    assert found is not None and found.codes.same_as(X)
    assert (found.scalar("x"), found.spec) == ((0.25, -7), TensorSpec((2, 3), "int8"))
    assert quantized(frame, X) is None


def test_constants_are_found_through_reshapes() -> None:
    values = np.arange(6, dtype=np.float32)
    with (frame := scope()).builder.function("main", [X]):
        with frame.builder.dataflow():
            bound = frame.emit(relax.const(values))
            shaped = frame.emit(relax.op.reshape(bound, (1, 6, 1)))
            output = frame.builder.emit_output(shaped)
        frame.builder.emit_func_output(output)
    found = constant_of(frame, shaped)
    assert found is not None and found.shape == (1, 6, 1) and array_of(shaped) is None
    assert constant_of(frame, X) is None


TABLE = np.linspace(5, 90, 256).astype(np.int16)
QUANTIZER = QuantizeConfig(-8, 7, -1, "int8", "fc")
RAW = MatmulConfig(True, 0, 0, True, 0, 0, 0, 0, 0, "int32")


@pytest.mark.parametrize(
    ("producer", "expected"),
    [
        (lambda x: call("quantize", QUANTIZER, x, np.float32([1]), np.int32([0])), (-8, 7)),
        (lambda x: call("lut", LutConfig("int16"), x, TABLE), (5, 90)),
        (lambda x: call("matmul", RAW, x, x), (-(2**31), 2**31 - 1)),
        (lambda x: relax.op.concat([x, x], 0), (-128, 127)),
    ],
)
def test_the_producer_bounds_the_codes_through_views(producer: Any, expected: Any) -> None:
    with (frame := scope()).builder.function("main", [X]):
        with frame.builder.dataflow():
            made = frame.emit(producer(X))
            turned = frame.emit(relax.op.permute_dims(made, [1, 0]))
            output = frame.builder.emit_output(turned)
        frame.builder.emit_func_output(output)
    assert code_range(frame, Quantized(turned, np.array(1.0), np.array(0))) == expected
    assert origin(frame, turned).same_as(frame.producer(made))


@pytest.mark.parametrize("scale", [-1.0, float("nan"), 0.5 * 2.0**15])
def test_a_factor_out_of_range_names_the_tensor(scale: float) -> None:
    with pytest.raises(LoweringError, match="fc: cannot requantize, multiplier outside"):
        TARGET.multiplier(scale)


@pytest.mark.parametrize(("scale", "offset"), [([[1.0, 2.0]], 0.0), (1.0, 0.17)])
def test_a_tensor_without_one_scale_is_no_scalar_operand(scale: Any, offset: float) -> None:
    tensor = Quantized(X, np.array(scale), np.array(0), offset)
    with pytest.raises(LoweringError, match="fc: an operand needs one scale"):
        tensor.scalar("fc")


def test_scales_lie_along_the_one_axis_that_is_asked_for() -> None:
    each = Quantized(X, np.array([[1.0, 2.0, 4.0]]), np.array(5))
    scales, zero_point = each.along(1, "fc")
    assert (scales.tolist(), zero_point) == ([1.0, 2.0, 4.0], 5)
    assert Quantized(X, np.array(0.5), np.array(5)).along(0, "fc") == (0.5, 5)
    with pytest.raises(LoweringError, match=r"fc: .* scales of shape \[1, 3\] .* axis 0 only"):
        each.along(0, "fc")
    zeros = Quantized(X, np.array(1.0), np.array([[1, 2, 3]]))
    with pytest.raises(LoweringError, match=r"zero points of shape \[1, 3\]"):
        zeros.along(1, "fc")


def test_what_is_constant_along_an_axis_does_not_vary() -> None:
    values = np.broadcast_to(np.array([[1.0], [2.0]]), (2, 3))
    np.testing.assert_array_equal(compressed(values), [[1.0], [2.0]])
    assert compressed(np.full((4, 1), 7)).shape == ()


def channels(scale: list[float], zero_point: list[int], axis: int = 1) -> relax.Call:
    config = QuantizeConfig(-128, 127, axis, "int8", "fc")
    return call("quantize", config, X, np.float32(scale), np.int32(zero_point))


def test_an_output_may_have_a_scale_per_channel_where_its_operator_has_channels() -> None:
    found = output_format(channels([1.0, 4.0, 2.0], [3] * 3), 1)
    assert (found.scale, found.zero_point) == (4.0, 3)
    assert found.multiplier(1.0).real().tolist() == [1.0, 0.25, 0.5]
    for equal in (output_format(channels([2.0] * 3, [3] * 3), axis) for axis in (None, 0, 1)):
        assert (equal.scale, equal.channels) == (2.0, None)
    for axis in (None, 0):
        with pytest.raises(LoweringError, match="fc: an operator's output needs one constant scal"):
            output_format(channels([1.0, 4.0, 2.0], [3] * 3), axis)
    with pytest.raises(LoweringError, match="fc: an operator's output needs one constant zero"):
        output_format(channels([1.0] * 3, [3, 3, 4]), 1)
