"""The four operators: rounding, clamping, axes, the zero code, export."""

import pytest
import torch
from torch import Tensor

from pipeline.quant import ops


def _quantize(x: Tensor, scale: float, zero: int, qmin: int, qmax: int, dtype: str) -> Tensor:
    return ops.quantize(x, torch.tensor(scale), torch.tensor(zero).int(), qmin, qmax, -1, dtype, "")


def test_halves_round_up_on_both_sides_of_zero() -> None:
    codes = _quantize(torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]), 1.0, 0, -128, 127, "int8")
    assert codes.tolist() == [-2, -1, 0, 1, 2, 3]


def test_values_outside_the_range_saturate() -> None:
    codes = _quantize(torch.tensor([-1e9, -3.0, 1e9]), 0.5, 3, -128, 127, "int8")
    assert codes.tolist() == [-128, -3, 127]
    assert codes.dtype == torch.int8


def test_int32_codes_are_exact_beyond_the_24_bits_of_float32() -> None:
    x = torch.tensor([float(2**26), -(2.0**26)])
    codes = _quantize(x, 0.5, 1, -(2**31) + 1, 2**31 - 1, "int32")
    assert codes.tolist() == [2**27 + 1, -(2**27) + 1]


def test_dequantize_of_quantize_is_within_half_a_step() -> None:
    x = torch.linspace(-1, 1, 1001)
    scale, zero = torch.tensor(2 / 255), torch.tensor(0).int()
    codes = ops.quantize(x, scale, zero, -128, 127, -1, "int8", "")
    restored = ops.dequantize(codes, scale, zero, -1)
    assert (restored - x).abs().max() <= scale / 2 * 1.001


def test_scales_along_an_axis_apply_to_their_slices() -> None:
    scale, zero = torch.tensor([1.0, 0.1]), torch.tensor([0, 5]).int()
    x = torch.ones(3, 2, 4)
    codes = ops.quantize(x, scale, zero, -128, 127, 1, "int8", "")
    assert codes[:, 0].unique().tolist() == [1]
    assert codes[:, 1].unique().tolist() == [15]
    torch.testing.assert_close(ops.dequantize(codes, scale, zero, 1), x)


def test_adalog_codes_follow_the_definition() -> None:
    scale = torch.tensor(2.0)
    x = 2.0 * torch.exp2(-torch.tensor([0.0, 1.0, 2.0, 10.0]) * 5 / 37)
    assert ops.adalog_quantize(x, scale, 5, 37, 8, 0.0, "").tolist() == [0, 1, 2, 10]


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_adalog_zero_code_begins_half_a_step_below_the_smallest(bits: int) -> None:
    scale, q, zero = torch.tensor(1.0), 4, 2**bits - 1
    edge = 2.0 ** (-(zero - 1 + 0.5) * q / 37)
    codes = ops.adalog_quantize(
        torch.tensor([edge * 1.01, edge * 0.99]), scale, q, 37, bits, 0.0, ""
    )
    assert codes.tolist() == [zero - 1, zero]
    assert ops.adalog_dequantize(codes, scale, q, 37, bits, 0.0)[1] == 0.0


def test_adalog_maps_zero_and_below_to_the_zero_code_and_large_values_to_code_0() -> None:
    x = torch.tensor([0.0, -0.3, 5.0])
    assert ops.adalog_quantize(x, torch.tensor(1.0), 2, 37, 8, 0.0, "").tolist() == [255, 255, 0]


def test_adalog_shift_is_added_before_and_subtracted_after() -> None:
    x, scale = torch.linspace(-0.169, 3, 50), torch.tensor(3.2)
    codes = ops.adalog_quantize(x, scale, 2, 37, 8, 0.17, "")
    restored = ops.adalog_dequantize(codes, scale, 2, 37, 8, 0.17)
    assert ((restored - x).abs() <= 0.02 * (x + 0.17) + 1e-3).all()


NAMES = ("quantize", "dequantize", "adalog_quantize", "adalog_dequantize")
TWIN_NAMES = ("twin_quantize", "twin_dequantize")


@pytest.mark.parametrize("name", [*NAMES, *TWIN_NAMES])
def test_operators_satisfy_torchs_own_checks(name: str) -> None:
    scale, zero = torch.tensor(0.1), torch.tensor(0).int()
    x, codes = torch.rand(2, 3), torch.zeros(2, 3, dtype=torch.uint8)
    arguments = {
        "quantize": (x, scale, zero, -128, 127, -1, "int8", "n"),
        "dequantize": (codes, scale, zero, -1),
        "adalog_quantize": (x, scale, 2, 37, 8, 0.0, "n"),
        "adalog_dequantize": (codes, scale, 2, 37, 8, 0.0),
        "twin_quantize": (x, scale, 3, 4, False, "n"),
        "twin_dequantize": (codes, scale, 3, 4, False),
    }[name]
    torch.library.opcheck(getattr(torch.ops.pocketvit, name).default, arguments)
