"""Reference and type of ``matmul``."""

from dataclasses import replace

import numpy as np
import pytest

from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.matmul import MatmulConfig

matmul = OPERATORS["matmul"]
RAW = MatmulConfig(False, 0, 0, True, 0, 0, 0, 0, 0, "int32")


@pytest.mark.parametrize("transpose_b", [False, True])
def test_zero_points_are_subtracted_before_the_product(transpose_b: bool) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(-32768, 32768, (2, 3, 5, 7)).astype(np.int16)
    b = rng.integers(-128, 128, (2, 3, 7, 4)).astype(np.int8)
    config = replace(RAW, transpose_b=transpose_b, zero_a=-9, zero_b=127)
    expected = np.einsum("xymk,xykn->xymn", a.astype(np.int64) + 9, b.astype(np.int64) - 127)
    stored = b.swapaxes(-1, -2) if transpose_b else b
    np.testing.assert_array_equal(matmul.reference(config, a, stored), expected)
    specs = [TensorSpec(a.shape, "int16"), TensorSpec(stored.shape, "int8")]
    assert matmul.infer(config, specs) == TensorSpec(expected.shape, "int32")


def test_the_output_is_rounded_half_up_shifted_and_clamped() -> None:
    a, b = np.array([[1], [-1], [3], [127]], np.int8), np.array([[2]], np.int8)
    config = MatmulConfig(False, 0, 0, False, 0, 2**29, 5, -10, 20, "int8")  # a quarter
    assert matmul.reference(config, a, b).ravel().tolist() == [6, 5, 7, 20]
