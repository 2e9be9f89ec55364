"""conv2d and linear: structure, numerics within one code, border classes, refusals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tvm import relax

from tests.tvm_passes.modules import (
    Graph,
    apply_rules,
    assert_close,
    assert_rewrites,
    build,
    configs,
    float_value,
    operators,
)
from tests.tvm_passes.run_kernel import codes
from tvm_passes.errors import LoweringError
from tvm_passes.lowering.products import lower_conv2d, lower_linear
from tvm_passes.lowering.views import sink_dequantize
from tvm_passes.ops.base import call
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig
from tvm_passes.ops.pad import PadConfig

Array = NDArray[Any]
RULES = (sink_dequantize, lower_conv2d, lower_linear)


def values(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape) * 0.1


def linear(
    x_dtype: str = "int8",
    out: tuple[Any, ...] = (0.05, 3),
    bias: Array | None = None,
    function: str | None = None,
    weights: Callable[[Graph], relax.Var] = lambda graph: graph.weights(values(9, 13)),
) -> Any:
    """``quantize(f(x @ w.T + bias))`` as the importer writes it."""

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        zero_point = {"int8": -7, "uint8": 20, "int16": 0}[x_dtype]
        scale = 0.02 if x_dtype != "int16" else 0.0001
        real = graph.dequantize(x, scale, zero_point)
        transposed = graph.emit(relax.op.permute_dims(weights(graph), [1, 0]))
        y = graph.emit(relax.op.matmul(real, transposed))
        if bias is not None:
            y = graph.emit(relax.op.add(y, relax.const(bias.astype(np.float32))))
        if function is not None:
            y = graph.pointwise(function, y)
        return graph.quantize(y, *out)

    return build([((1, 5, 13), x_dtype)], body)


@pytest.mark.parametrize("x_dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("out", [(0.02, 3), (0.0001, 0, "int16"), (2e-4, 0, "int32")])
@pytest.mark.parametrize("function", [None, "relu", "relu6"])
def test_linear(x_dtype: str, out: tuple[Any, ...], function: str | None) -> None:
    before = linear(x_dtype, out, values(9) * 4, function)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["linear"]
    assert_close(before, after, codes(x_dtype, 1, 5, 13))


def test_linear_in_integers() -> None:
    """The constants, worked out by hand: scales 1/2 and 1/4, output 1/2, biases 1 and -3."""
    w = np.array([[1, -2, 3], [4, 5, -6]], np.int8)

    def before(graph: Graph, x: relax.Var) -> relax.Expr:
        weights = graph.dequantize(relax.const(w), [0.25, 0.5], [0, 0], axis=0)
        transposed = graph.emit(relax.op.permute_dims(weights, [1, 0]))
        y = graph.emit(relax.op.matmul(graph.dequantize(x, 0.5, 10), transposed))
        bias = relax.const(np.array([1.0, -3.0], np.float32))
        return graph.quantize(graph.emit(relax.op.add(bias, y)), 0.5, -1)

    def after(graph: Graph, x: relax.Var) -> relax.Expr:
        config = LinearConfig(0, -1, -128, 127, "int8")
        bias = np.array([[8 - 10 * 2, -12 - 10 * 3]], np.int32)
        multiplier = np.array([2**29, 2**30], np.int32)  # 1/4 and 1/2
        return graph.emit(call("linear", config, x, w, bias, multiplier))

    x = [((4, 3), "int8")]
    assert_rewrites(build(x, before), build(x, after), *RULES)


def test_a_clamp_becomes_a_range_of_codes() -> None:
    (config,) = configs(apply_rules(linear(out=(0.05, -100), function="relu6"), *RULES), "linear")
    assert (config.qmin, config.qmax) == (-100, 20)
    (config,) = configs(apply_rules(linear(out=(0.05, -100), function="relu"), *RULES), "linear")
    assert (config.qmin, config.qmax) == (-100, 127)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_a_rectified_mlp_is_two_products(bits: int) -> None:
    """ReLU between them is the least code of the first one: no wider codes, no table."""
    least, greatest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def product(graph: Graph, x: relax.Expr, width: int, depth: int) -> relax.Var:
        weights = graph.weights(values(width, depth), bits=bits)
        y = graph.emit(relax.op.matmul(x, graph.emit(relax.op.permute_dims(weights, [1, 0]))))
        return graph.emit(relax.op.add(y, relax.const(values(width).astype(np.float32))))

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        hidden = graph.pointwise("relu", product(graph, graph.dequantize(x, 0.1), 24, 13))
        hidden = graph.stored(hidden, 12 / 2**bits, least, codes=(least, greatest))
        return graph.quantize(product(graph, hidden, 9, 24), 0.3)

    before = build([((1, 5, 13), "int8")], body)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["linear", "linear"]
    first, _ = configs(after, "linear")
    assert (first.dtype, first.qmin, first.qmax) == ("int8", least, greatest)
    assert_close(before, after, codes("int8", 1, 5, 13), codes=2, share=0.3)


def conv(
    x_shape: tuple[int, ...] = (1, 6, 7, 8),
    w_shape: tuple[int, ...] = (5, 6, 3, 3),
    bias: Array | None = None,
    x_dtype: str = "int8",
    out: tuple[Any, ...] = (0.05, 3),
    **attrs: Any,
) -> Any:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        zero_point = {"int8": -7, "uint8": 0, "int16": 0}[x_dtype]
        real = graph.dequantize(x, 0.02 if x_dtype != "int16" else 1e-4, zero_point)
        y = graph.emit(relax.op.nn.conv2d(real, graph.weights(values(*w_shape)), **attrs))
        if bias is not None:
            y = graph.emit(relax.op.add(y, relax.const(bias.astype(np.float32))))
        return graph.quantize(y, *out)

    return build([(x_shape, x_dtype)], body)


GEOMETRY: dict[str, dict[str, Any]] = {
    "plain": {},
    "one by one": {"w_shape": (5, 6, 1, 1)},
    "one by one, strided": {"w_shape": (5, 6, 1, 1), "strides": (2, 2)},
    "padded": {"padding": (1, 1, 1, 1), "strides": (2, 1)},
    "padded unevenly": {"padding": (0, 1, 2, 0)},
    "dilated": {"dilation": (2, 1), "padding": (2, 1, 2, 1)},
    "depthwise": {"w_shape": (6, 1, 3, 3), "groups": 6, "padding": (1, 1, 1, 1)},
    "grouped": {"w_shape": (4, 3, 3, 2), "groups": 2},
    "one pixel": {"x_shape": (1, 6, 1, 1), "padding": (1, 1, 1, 1)},
}


@pytest.mark.parametrize("geometry", GEOMETRY.values(), ids=GEOMETRY)
@pytest.mark.parametrize("x_dtype", ["int8", "int16"])
def test_conv2d(geometry: dict[str, Any], x_dtype: str) -> None:
    channels = geometry.get("w_shape", (5,))[0]
    before = conv(**geometry, x_dtype=x_dtype, bias=values(channels, 1, 1), out=(0.01, 3))
    after = apply_rules(before, *RULES)
    assert_close(before, after, codes(x_dtype, *geometry.get("x_shape", (1, 6, 7, 8))))


def test_conv2d_reads_and_writes_nhwc_and_pads_with_the_zero_point() -> None:
    after = apply_rules(conv(padding=(0, 1, 2, 0), strides=(2, 1)), *RULES)
    assert operators(after) == ["permute_dims", "pad", "conv2d", "permute_dims"]
    assert configs(after, "pad") == [PadConfig((0, 1), (2, 0), -7)]
    (config,) = configs(after, "conv2d")
    assert isinstance(config, Conv2dConfig)
    assert (config.strides, config.dilation, config.groups) == ((2, 1), (1, 1), 1)
    assert (config.row_classes, config.column_classes) == ((), ())


def test_a_one_by_one_convolution_is_a_linear_layer() -> None:
    after = apply_rules(conv(w_shape=(5, 6, 1, 1)), *RULES)
    assert operators(after) == ["permute_dims", "linear", "permute_dims"]


def test_accumulators_that_may_overflow_are_refused() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        w = graph.weights(np.ones((2, 600)))
        transposed = graph.emit(relax.op.permute_dims(w, [1, 0]))
        y = graph.emit(relax.op.matmul(graph.dequantize(x, 1.0), transposed))
        return graph.quantize(y, 1.0, 0, "int16", "stages.0.fc1")

    with pytest.raises(LoweringError, match=r"stages.0.fc1: .* may reach 2\^31.2"):
        apply_rules(build([((1, 600), "int16")], body), *RULES)


@pytest.mark.parametrize("factor", [1.0, 1e12])
def test_a_bias_counts_as_part_of_the_accumulator(factor: float) -> None:
    before = linear(bias=np.full(9, 0.001 * factor))
    if factor == 1.0:
        assert operators(apply_rules(before, *RULES)) == ["linear"]
    else:
        with pytest.raises(LoweringError, match="overflow int32"):
            apply_rules(before, *RULES)


def refused(body: Callable[[Graph, relax.Var], relax.Expr], shape: tuple[int, ...]) -> str:
    with pytest.raises(LoweringError) as error:
        apply_rules(build([(shape, "int8")], body), *RULES)
    return str(error.value)


def test_an_activation_with_a_scale_per_channel_is_refused() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        real = graph.dequantize(x, [0.1, 0.2, 0.3], [0, 0, 0], axis=1)
        return graph.quantize(
            graph.emit(relax.op.nn.conv2d(real, graph.weights(values(2, 3, 1, 1)))), 1.0, name="c"
        )

    assert refused(body, (1, 3, 4, 4)) == "c: input with a scale per channel"


OUTPUTS = 0.02 * 2.0 ** np.linspace(-2, 2, 9)  # scales of channels, 16 times apart


@pytest.mark.parametrize("function", [None, "relu"])
def test_a_linear_with_a_scale_per_output(function: str | None) -> None:
    out = (OUTPUTS, np.full(9, 5), "int8", "q", 2)
    before = linear(out=out, bias=values(9) * 4, function=function)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["linear"]
    assert_close(before, after, codes("int8", 1, 5, 13))


def test_a_convolution_with_a_scale_per_output() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        weights = graph.weights(values(9, 3, 3, 3))
        y = relax.op.nn.conv2d(graph.dequantize(x, 0.02, 4), weights, padding=(1, 1, 1, 1))
        return graph.quantize(graph.emit(y), OUTPUTS, np.zeros(9), axis=1)

    before = build([((1, 3, 6, 5), "int8")], body)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["permute_dims", "pad", "conv2d", "permute_dims"]
    assert_close(before, after, codes("int8", 1, 3, 6, 5))


@pytest.mark.parametrize("axis", [0, 1])
def test_scales_along_another_axis_of_a_linear_are_refused(axis: int) -> None:
    with pytest.raises(LoweringError, match="q: an operator's output needs one constant scale"):
        apply_rules(linear(out=(np.arange(1.0, 6), np.zeros(5), "int8", "q", axis)), *RULES)


def test_a_clamp_at_six_with_a_scale_per_output_is_refused() -> None:
    before = linear(out=(OUTPUTS, np.zeros(9), "int8", "q", 2), function="relu6")
    with pytest.raises(LoweringError, match="q: a clamp at 6.0 with a scale per channel"):
        apply_rules(before, *RULES)


@pytest.mark.parametrize("groups", [6, 3])
def test_groups_may_have_inputs_with_scales_of_their_own(groups: int) -> None:
    """As the depthwise convolution of values whose heads have scales of their own."""

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        scales = np.repeat([0.01, 0.04, 0.16], 2)
        real = graph.dequantize(x, scales, np.full(6, 3), axis=1)
        w = graph.weights(values(6, 6 // groups, 3, 3))
        y = graph.emit(relax.op.nn.conv2d(real, w, padding=(1, 1, 1, 1), groups=groups))
        return graph.quantize(y, 0.03)

    before = build([((1, 6, 5, 4), "int8")], body)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["permute_dims", "pad", "conv2d", "permute_dims"]
    assert_close(before, after, codes("int8", 1, 6, 5, 4))


def test_asymmetric_weights_are_refused() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        w = graph.dequantize(relax.const(codes("int8", 3, 2)), 0.1, 5)
        return graph.quantize(graph.emit(relax.op.matmul(graph.dequantize(x, 1.0), w)), 1.0)

    assert refused(body, (1, 3)) == "y: weights must be constant and symmetric"


def test_weight_scales_along_the_inputs_are_refused() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        w = graph.emit(relax.op.permute_dims(graph.weights(values(2, 3), axis=1), [1, 0]))
        return graph.quantize(graph.emit(relax.op.matmul(graph.dequantize(x, 1.0), w)), 1.0)

    assert refused(body, (1, 3)) == "y: weight scales must lie along the output channels"


def test_a_bias_per_token_is_refused() -> None:
    assert "bias per token" in refused(
        lambda graph, x: graph.quantize(
            graph.emit(
                relax.op.add(
                    graph.emit(
                        relax.op.matmul(graph.dequantize(x, 1.0), graph.weights(values(3, 2), 1))
                    ),
                    relax.const(values(5, 2).astype(np.float32)),
                )
            ),
            1.0,
        ),
        (5, 3),
    )


def test_a_grouped_convolution_with_a_bias_per_pixel_is_refused() -> None:
    before = conv(w_shape=(6, 1, 3, 3), groups=6, bias=values(1, 6, 5, 6))
    with pytest.raises(LoweringError, match="y: a grouped convolution with a bias per pixel"):
        apply_rules(before, *RULES)


def test_products_of_two_activations_are_left_alone() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        real = graph.dequantize(x, 1.0)
        return graph.quantize(graph.emit(relax.op.matmul(real, real)), 1.0)

    before = build([((4, 4), "int8")], body)
    assert_rewrites(before, before, *RULES)
    assert float_value(before, codes("int8", 4, 4)).shape == (4, 4)
