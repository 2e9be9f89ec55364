"""References of ``linear`` and ``conv2d`` against PyTorch, and their rounding in numbers."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tvm_passes.product_calls import product_calls
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig, bias_rows, exact_matmul

linear, conv2d = OPERATORS["linear"], OPERATORS["conv2d"]
RAW = (0, 0, -(2**31), 2**31 - 1, "int32")  # int32 codes


def quarters(channels: int) -> np.ndarray:
    return np.full(channels, 2**29, np.int32)


def test_linear_rounds_half_up_adds_the_zero_point_and_saturates() -> None:
    x = np.array([[1], [2], [-3], [100], [-100]], np.int8)
    w = np.array([[2], [4]], np.int8)
    bias = np.array([[0, -2]], np.int32)
    config = LinearConfig(0, 10, -50, 60, "int8")
    # times 2 and 4, bias, quarter (2^29 / 2^31), zero point
    expected = [[11, 11], [11, 12], [9, 7], [60, 60], [-40, -50]]
    result = linear.reference(config, x, w, bias, quarters(2))
    assert result.tolist() == expected and result.dtype == np.int8


def test_products_of_extremes_are_exact() -> None:
    a = np.full((1, 4000), -32768, np.int16)
    assert exact_matmul(a, np.full((4000, 1), -127, np.int8))[0, 0] == 4000 * 32768 * 127


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 2, 3]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
def test_conv2d_is_the_convolution_of_pytorch(
    per_group: int,
    groups: int,
    taps: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    extra: tuple[int, int],
) -> None:
    size = [d * (t - 1) + 1 + e for t, d, e in zip(taps, dilation, extra, strict=True)]
    make = partial(Conv2dConfig, strides=strides, dilation=dilation, groups=groups)
    shapes = (1, *size, 2 * groups), (per_group * groups, *taps, 2)
    for _, _, (x, w, bias, *_) in product_calls("conv2d", make, *shapes, ("int8", "int32")):
        got = conv2d.reference(make(*RAW), x, w, bias, quarters(len(w)))
        exact = torch.nn.functional.conv2d(
            torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64)),
            torch.from_numpy(w.transpose(0, 3, 1, 2).astype(np.float64)),
            torch.from_numpy(bias[0].astype(np.float64)),
            strides,
            dilation=dilation,
            groups=groups,
        )
        expected = np.floor(exact.numpy().transpose(0, 2, 3, 1) / 4 + 0.5)
        np.testing.assert_array_equal(got, expected)
        specs = [TensorSpec(array.shape, "int8") for array in (x, w)]
        assert conv2d.infer(make(*RAW), specs) == TensorSpec(expected.shape, "int32")


def test_the_bias_row_of_a_pixel_is_its_row_class_then_its_column_class() -> None:
    config = Conv2dConfig(*RAW, (1, 1), (1, 1), 1, (0, 1), (2, 0, 0))
    assert bias_rows(config, 2, 3).tolist() == [[2, 0, 0], [5, 3, 3]]
    plain = Conv2dConfig(*RAW, (1, 1), (1, 1), 1)
    assert bias_rows(plain, 2, 3).tolist() == [[0] * 3] * 2


def test_linear_keeps_the_leading_dimensions() -> None:
    specs = [TensorSpec((1, 4, 5, 7), "int8"), TensorSpec((9, 7), "int8")]
    assert linear.infer(LinearConfig(*RAW), specs) == TensorSpec((1, 4, 5, 9), "int32")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_every_input_type_is_taken_at_its_value(dtype: str) -> None:
    x = np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max]], dtype)
    w, bias = np.array([[4, 0], [0, 4]], np.int8), np.zeros((1, 2), np.int32)
    assert linear.reference(LinearConfig(*RAW), x, w, bias, quarters(2)).tolist() == x.tolist()


def test_more_groups_than_channels_read_the_channels_again() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (1, 5, 4, 6)).astype(np.int8)
    w = rng.integers(-127, 128, (18, 3, 3, 1)).astype(np.int8)
    bias = rng.integers(-99, 99, (1, 18)).astype(np.int32)
    config = Conv2dConfig(*RAW, strides=(1, 1), dilation=(1, 1), groups=18)
    got = conv2d.reference(config, x, w, bias, quarters(18))
    repeated = conv2d.reference(config, np.tile(x, 3), w, bias, quarters(18))
    np.testing.assert_array_equal(got, repeated)
