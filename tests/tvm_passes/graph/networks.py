"""Small networks of integer operators, and what must hold of them after a pass."""

from collections.abc import Callable, Sequence

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from tests.tvm_passes.modules import build
from tests.tvm_passes.product_calls import product_calls
from tests.tvm_passes.run_kernel import codes
from tvm_passes.graph.data_movement import count_moves
from tvm_passes.graph.layout import assign_layouts
from tvm_passes.interpret import interpret
from tvm_passes.ops.add import add_config
from tvm_passes.ops.base import TensorSpec, call
from tvm_passes.ops.elementwise import requantize_config
from tvm_passes.ops.gemm import LinearConfig
from tvm_passes.ops.matmul import MatmulConfig
from tvm_passes.ops.norm import LayerNormConfig, layer_norm_config
from tvm_passes.ops.pooling import mean_config

REQUANTIZE = requantize_config(0.5, 3, 0.7, -1, -128, 127, "int8")
ADD = add_config(0.5, 3, 0.25, 0, 0.8, -1, -128, 127, "int8", "int8", "int8")
RAW = MatmulConfig(False, 0, 0, True, 0, 0, 0, 0, 0, "int32")
SWAPPED = MatmulConfig(True, 0, 0, True, 0, 0, 0, 0, 0, "int32")
TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


def module(shapes: list[tuple[int, ...]], body: Callable[..., relax.Expr]) -> tvm.IRModule:
    """``body`` on int8 inputs of ``shapes``; ``body`` takes a function that binds, and inputs."""
    return build([(shape, "int8") for shape in shapes], lambda graph, *x: body(graph.emit, *x))


def norm_config(length: int) -> LayerNormConfig:
    """LayerNorm of int8 rows."""
    form = (0.1, 1e-5, 0.03, 2, -128, 127, "int8")
    return layer_norm_config(*form, length=length, in_dtype="int8")


def rows(x: relax.Expr) -> relax.Expr:
    """A LayerNorm."""
    return call("layer_norm", norm_config(TensorSpec.of(x).shape[-1]), x)


def linear(x: relax.Expr, channels: int) -> relax.Expr:
    """A linear to ``channels``, with weights."""
    shape = TensorSpec.of(x).shape
    dtypes = ("int8", "int8")
    _, config, (_, *constants) = product_calls(
        "linear", LinearConfig, shape, (channels, shape[-1]), dtypes
    )[0]
    return call("linear", config, x, *constants)


def products(x: relax.Expr) -> relax.Expr:
    """A square linear."""
    return linear(x, TensorSpec.of(x).shape[-1])


def mean_of(x: relax.Expr, axes: Sequence[int], keepdims: bool) -> relax.Expr:
    """A mean over ``axes``."""
    options = {"shape": TensorSpec.of(x).shape, "axes": axes, "keepdims": keepdims}
    config = mean_config(0.5, 3, 0.2, 1, -128, 127, "int8", **options, in_dtype="int8")
    return call("mean", config, x)


def movements(mod: tvm.IRModule) -> int:
    """Operators that copy data."""
    return count_moves(mod).operators


def collapsed(mod: tvm.IRModule) -> tvm.IRModule:
    """The module after layouts are assigned, proved to compute the same."""
    after = assign_layouts(mod)
    assert_same(mod, after)
    return after


def assert_same(before: tvm.IRModule, after: tvm.IRModule, *inputs: NDArray[np.int8]) -> None:
    """Assert that two modules compute the same, of random codes unless ``inputs`` are given."""
    specs = [TensorSpec.of(param) for param in before["main"].params]
    arrays = inputs or [codes(spec.dtype, *spec.shape) for spec in specs]
    np.testing.assert_array_equal(interpret(after, *arrays), interpret(before, *arrays))
