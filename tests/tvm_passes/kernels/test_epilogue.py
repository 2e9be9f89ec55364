"""The end of every product, on the accumulators at which fixed-point arithmetic goes wrong.

A ``linear`` layer whose weights are zero hands its biases to the epilogue: every channel tries
another accumulator and multiplier.
"""

from itertools import product

import numpy as np
import pytest

from tests.tvm_passes.run_kernel import EVERY_ISA, Call, check_all
from tvm_passes.ops.base import OPERATORS
from tvm_passes.ops.gemm import LinearConfig

MULTIPLIERS = [0, 1, 0x5A827999, 2**31 - 1]
MULTIPLIERS += [2**bits + step for bits in range(4, 31) for step in (-1, 0, 1)]
OUTPUTS = [
    (-128, -128, 127, "int8"),
    (127, -8, 7, "int8"),
    (3, 3, 100, "int8"),
    (0, -32767, 32767, "int16"),
    (-5, -(2**31), 2**31 - 1, "int32"),
    (0, -1000, 2**31 - 1, "int32"),
]


def accumulators(left: int) -> list[int]:
    """Extremes, small ones, and the neighbours of every power of two."""
    greatest = (2**31 - 1) >> left
    near = [2**bits + step for bits in range(0, 31, 3) for step in (-1, 0, 1)]
    inside = [value for value in near if value <= greatest]
    return [greatest, -greatest - 1, 3 * greatest // 4, *inside, *(-value for value in inside)]


def call(left: int, output: tuple[int, int, int, str]) -> Call:
    columns = list(product(accumulators(left), MULTIPLIERS))
    acc, multiplier = np.array(columns, np.int64).astype(np.int32).T
    weights = np.zeros((len(columns), 1), np.int8)
    arrays = [np.ones((1, 1), np.int8), weights, acc[None], multiplier]
    return "linear", LinearConfig(left, *output), list(map(np.ascontiguousarray, arrays))


@pytest.mark.parametrize("isa", EVERY_ISA)
def test_every_size_of_multiplier_and_extreme_accumulators(isa: str) -> None:
    lefts = (0, 1, 2, 7, 15, 30)
    check_all([call(left, output) for left, output in zip(lefts, OUTPUTS, strict=True)], isa)


def test_multipliers_round_half_up() -> None:
    """The contract on one ISA, in numbers: 0.5 rounds to 1 and -0.5 to 0."""
    acc = np.array([[1, -1, 3, -3, 5, -5]], np.int32)
    quarters = np.full(6, 2**29, np.int32)
    config = LinearConfig(1, 0, -128, 127, "int8")
    arrays = [np.zeros((1, 1), np.int8), np.zeros((6, 1), np.int8), acc, quarters]
    result = OPERATORS["linear"].reference(config, *arrays)
    assert result.tolist() == [[1, 0, 2, -1, 3, -2]]
    check_all([("linear", config, arrays)], "portable")
