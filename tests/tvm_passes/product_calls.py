"""Random and adversarial calls of products with constant weights, their accumulators in int32."""

from collections.abc import Callable
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.tvm_passes.run_kernel import Call
from tvm_passes.numerics import INT_RANGE, Rescale
from tvm_passes.ops.gemm import LinearConfig

Array = NDArray[Any]
Shape = tuple[int, ...]

INT32_MAX = 2**31 - 1
# zero point, range, and spread of the codes; many of the 8-bit ones saturate
OUTPUTS = {
    "int8": (5, -128, 127, 100.0),
    "int16": (0, -32767, 32767, 20000.0),
    "int32": (0, *INT_RANGE["int32"], 0.0),
}


def product_calls(
    name: str,
    make_config: Callable[..., LinearConfig],
    x_shape: Shape,
    w_shape: Shape,
    dtypes: tuple[str, str],
    bias_rows: int = 1,
) -> list[Call]:
    """Three calls that share a kernel: random codes, random extremes, every sum at its extreme.

    Args:
        name: "linear" or "conv2d".
        make_config: from the fields of ``LinearConfig`` to the operator's configuration.
        x_shape: of the input.
        w_shape: of the weights, output channels first.
        dtypes: of the input and of the output.
        bias_rows: rows of the bias table.
    """
    rng = np.random.default_rng(prod(x_shape) + prod(w_shape))
    zero_point, qmin, qmax, spread = OUTPUTS[dtypes[1]]
    low, high = INT_RANGE[dtypes[0]]
    channels, depth = w_shape[0], prod(w_shape[1:])
    typical = (high - low) / sqrt(12) * 73 * sqrt(depth)
    real = (spread / typical or 0.9) * rng.uniform(0.1, 1.0, channels)
    real[rng.integers(channels)] *= 2.0**-12
    form = Rescale.from_real(real)
    config = make_config(form.left, zero_point, qmin, qmax, dtypes[1])
    furthest = low if -low > high else high

    def call(x: Array, w: Array, share: float) -> Call:
        """With biases that take up to ``share`` of what the sums of products leave free."""
        reach = np.abs(w.reshape(channels, -1)).sum(1) * abs(furthest)
        free = (INT32_MAX >> form.left) - reach
        assert free.min() >= 0, f"{name} {x_shape} {w_shape} overflows"
        drawn = rng.uniform(-share, share, (bias_rows, channels))
        signs = np.sign(w.reshape(channels, -1).sum(1) * furthest)
        bias = np.trunc((signs if share == 1.0 else drawn) * free)
        arrays = [x.astype(dtypes[0]), w.astype(np.int8)]
        arrays.append(np.broadcast_to(bias, (bias_rows, channels)).astype(np.int32))
        return name, config, [*arrays, form.multiplier]

    signs = np.where(np.arange(channels) % 2, -1, 1).reshape(-1, *[1] * (len(w_shape) - 1))
    return [
        call(rng.integers(low, high + 1, x_shape), rng.integers(-127, 128, w_shape), 1e-4),
        call(rng.choice([low, high], x_shape), rng.choice([-127, 127], w_shape), 0.5),
        call(np.full(x_shape, furthest), np.broadcast_to(127 * signs, w_shape), 1.0),
    ]
