"""The kernel of the dynamic ReLU, alone and behind products, bit for bit."""

import numpy as np
import pytest

from tests.tvm_passes.kernels.test_fused_kernel import chain
from tests.tvm_passes.product_calls import product_calls
from tests.tvm_passes.run_kernel import EVERY_ISA, Call, check_all, codes
from tvm_passes.ops.dynamic_relu import DynamicReluConfig, dynamic_relu_config
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig

Gates = list[np.ndarray]


def gates(*shape: int) -> Gates:
    """Two gates, the ends of their range first and last."""
    drawn = np.random.default_rng(0).integers(0, 32768, (2, *shape)).astype(np.int16)
    drawn.reshape(2, -1)[:, [0, -1]] = 0, 32767
    return list(drawn)


def config(dtype: str, out: str, out_scale: float = 0.02) -> DynamicReluConfig:
    zero, low, high = (3, -128, 127) if out == "int8" else (0, -32767, 32767)
    return dynamic_relu_config(
        0.013, 5 if dtype == "int8" else 0, out_scale, zero, low, high, out, dtype
    )


def alone() -> list[Call]:
    calls: list[Call] = []
    for shape, gate in [((1, 5, 7, 33), (33,)), ((1, 6, 4, 5), (1, 6, 1, 1)), ((1, 1), (1, 1))]:
        for dtype in ("int8", "int16"):
            for out, scale in (("int8", 0.02), ("int16", 1e-3), ("int8", 1e-7)):
                arrays = [codes(dtype, *shape), *gates(*gate)]
                calls.append(("dynamic_relu", config(dtype, out, scale), arrays))
    return calls


def behind_products() -> list[Call]:
    calls: list[Call] = []
    anchors = product_calls("linear", LinearConfig, (1, 5, 6, 24), (21, 24), ("int8", "int16"))
    geometry = {"strides": (1, 1), "dilation": (1, 1), "groups": 40}
    for call in product_calls(
        "conv2d",
        lambda *args: Conv2dConfig(*args, **geometry),
        (1, 7, 6, 20),
        (40, 3, 3, 1),
        ("int8", "int16"),
    ):
        anchors.append(call)
    for anchor in anchors:
        channels = len(anchor[2][1])
        step = ("dynamic_relu", config("int16", "int8", 4.0), gates(1, 1, 1, channels), False)
        calls.append(chain(anchor, step))
    return calls


@pytest.mark.parametrize("isa", EVERY_ISA)
def test_kernels_equal_their_references(isa: str) -> None:
    check_all([*alone(), *behind_products()], isa)
