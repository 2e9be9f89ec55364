"""The softmax kernel equals its reference bit for bit."""

import numpy as np
import pytest
from numpy.typing import NDArray

import tvm_passes.kernels.softmax  # noqa: F401, registers the kernel
from tests.tvm_passes.run_kernel import ARM_ISAS, HOST_ISAS, Call, check_all, codes
from tvm_passes.ops.softmax import (
    adalog_softmax_config,
    softmax_config,
    uniform_softmax_config,
)

CONFIGS = [
    softmax_config(1e-4),
    softmax_config(1e-9),
    softmax_config(0.5, "int8"),
    uniform_softmax_config(1e-4, 1 / 15, -8, 7, "int8"),
    uniform_softmax_config(1e-4, 1 / 900, 0, 127, "int8"),
    uniform_softmax_config(1e-4, 3e-4, 0, 3000, "int16"),
    adalog_softmax_config(1e-4, 1, 2, 4),
    adalog_softmax_config(3e-3, 10, 37, 8, 0.7),
]
# x and its bias: odd lengths, short rows, one element, long rows; bias per head, per row, per key
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...] | None]] = [
    ((2, 3, 7, 49), (1, 3, 1, 49)),
    ((1, 2, 5, 197), (1, 2, 5, 197)),
    ((4, 1), None),
    ((3, 64), (3, 1)),
    ((2, 3, 7), (1, 1, 7)),
    ((1, 12544), None),
]


def logits(shape: tuple[int, ...]) -> NDArray[np.int32]:
    return (np.random.default_rng(0).normal(size=shape) * 20000).astype(np.int32)


def calls() -> list[Call]:
    result: list[Call] = []
    for config in CONFIGS:
        for shape, bias_shape in SHAPES:
            equal = np.full(shape, -(2**31), np.int32)
            inputs = [logits(shape), codes("int32", *shape), equal]
            result += [("softmax", config, [x]) for x in inputs]
            if bias_shape is None:
                result.append(("softmax", config, [codes("int16", *shape)]))
                continue
            mask = np.where(np.arange(np.prod(bias_shape)) % 3, 50, -(2**24))
            for bias in (codes("int32", *bias_shape), mask.reshape(bias_shape).astype(np.int32)):
                result += [("softmax", config, [x, bias]) for x in inputs]
    return result


@pytest.mark.parametrize("isa", HOST_ISAS + ARM_ISAS)
def test_kernel_equals_its_reference(isa: str) -> None:
    check_all(calls(), isa)
