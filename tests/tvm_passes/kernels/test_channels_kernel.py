"""Kernels of factors per channel equal their references bit for bit, alone and in a product."""

import numpy as np
import pytest

import tvm_passes.kernels  # noqa: F401, registers the kernels
from tests.tvm_passes.kernels.test_fused_kernel import chain, linears
from tests.tvm_passes.run_kernel import EVERY_ISA, Call, check_all, codes
from tvm_passes.ops.channels import requantize_channels_config, scale_channels_config
from tvm_passes.ops.pwl8 import pwl8_lines

OUT = (-100, -128, 127, "int8")


def factors(channels: int, octaves: float) -> np.ndarray:
    signs = np.where(np.arange(channels) % 5 == 2, -1, 1)
    return signs * np.geomspace(1 / 150, 2.0**octaves / 150, channels)


def alone() -> list[Call]:
    result: list[Call] = []
    for dtype, zero, octaves in [("int16", 0, 3), ("int8", 5, 9), ("uint8", 128, 9)]:
        for shape in [(3, 21), (2, 3, 48), (7, 1)]:
            steps = factors(shape[-1], octaves)
            words = scale_channels_config(steps, dtype, zero, *OUT)
            assert words is not None
            exact = requantize_channels_config(steps, dtype, zero, *OUT)
            x = codes(dtype, *shape)
            result.append(("scale_channels", words[0], [x, words[1]]))
            result.append(("requantize_channels", exact[0], [x, *exact[1:]]))
    steps = factors(33, 20)
    wide = requantize_channels_config(steps, "int16", 0, 0, -32767, 32767, "int16")
    result.append(("requantize_channels", wide[0], [codes("int16", 2, 33), *wide[1:]]))
    long = requantize_channels_config(steps * 2.0**-15, "int32", 0, *OUT)
    for x in (codes("int32", 2, 33), codes("int32", 2, 33) >> 12):
        result.append(("requantize_channels", long[0], [x, *long[1:]]))
    narrow = scale_channels_config(factors(19, 2), "int16", 0, 7, 0, 200, "uint8")
    assert narrow is not None
    result.append(("scale_channels", narrow[0], [codes("int16", 5, 19), narrow[1]]))
    return result


def behind_a_product() -> list[Call]:
    """Lines or nothing, then factors, in the epilogue."""
    result: list[Call] = []
    lines, unit = pwl8_lines("gelu", 8 / 32767, 8.0, 64)
    gelu = ("pwl8", lines.config, [lines.slope, lines.base], False)
    for rows, depth, channels in [((1, 9), 16, 21), ((1, 13), 24, 48)]:
        steps = np.abs(factors(channels, 2)) * unit / (8 / 32767)
        words = scale_channels_config(steps, "int16", 0, *OUT)
        assert words is not None
        exact = requantize_channels_config(steps, "int16", 0, *OUT)
        scaled = ("scale_channels", words[0], [words[1]], False)
        for anchor in linears(rows, depth, channels)[:2]:
            result.append(chain(anchor, gelu, scaled))
            result.append(chain(anchor, scaled))
            result.append(chain(anchor, ("requantize_channels", exact[0], list(exact[1:]), False)))
    return result


@pytest.mark.parametrize("isa", EVERY_ISA)
@pytest.mark.parametrize("calls", [alone, behind_a_product], ids=lambda made: made.__name__)
def test_kernels_equal_their_references(calls, isa: str) -> None:
    check_all(calls(), isa)
