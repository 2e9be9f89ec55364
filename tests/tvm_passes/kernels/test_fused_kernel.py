"""Fused products: bit for bit, over odd shapes, every kind of step and padding."""

from functools import partial

import numpy as np
import pytest

from tests.tvm_passes.product_calls import product_calls
from tests.tvm_passes.run_kernel import EVERY_ISA, Call, check_all, codes
from tvm_passes.ops.adalog import adalog_quantize_config
from tvm_passes.ops.add import add_config, scaled_add_config
from tvm_passes.ops.base import OPERATORS, TensorSpec, encode
from tvm_passes.ops.elementwise import mul_config, requantize_config
from tvm_passes.ops.fused import FusedConfig, Step
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig
from tvm_passes.ops.pad import PadConfig
from tvm_passes.ops.pointwise import LutConfig, adalog_table
from tvm_passes.ops.pwl import pwl_tables
from tvm_passes.ops.pwl8 import pwl8_tables

SILU = pwl8_tables("silu", 8 / 32767, 8.28 / 255, -120, -128, 127, "int8")
KINK = pwl8_tables("hardsigmoid", 10 / 32767, 1 / 255, -128, -128, 127, "int8")  # 128 segments
ADD = add_config(1.0, 0, 0.5, 3, 150.0, 1, -128, 127, "int8", "int16", "int8")
SUM16 = add_config(1.0, 0, 0.5, 0, 1.2, 0, -32768, 32767, "int16", "int16", "int16")
NARROW = requantize_config(0.01, 0, 1.0, -5, -120, 127, "int8")
MUL = mul_config(1.0, 0, 0.01, 4, 90.0, 2, -128, 127, "int8", "int16", "int8")
SCALED, LEFT, RIGHT = scaled_add_config(
    np.linspace(0.1, 2.0, 21), 0, 0.7, 0, 160.0, 5, -128, 127, "int8", "int16", "int16"
)
GELU = pwl_tables("gelu", 8 / 32767, 8 / 32767, 0, -32767, 32767, "int16")
LOG = adalog_quantize_config(8 / 32767, 0, 4.3, 19, 37, 8, 0.17)
GEOMETRY = {"strides": (1, 1), "dilation": (1, 1), "groups": 1}


def chain(anchor: Call, *following: tuple[str, object, list[np.ndarray], bool]) -> Call:
    """A fused call: every step is an operator, its configuration, its other arguments, and whether
    those come first."""
    name, config, arrays = anchor
    others = [array for _, _, more, _ in following for array in more]
    total = len(arrays) + len(others)
    steps = [Step(name, encode(config), tuple(range(len(arrays))))]
    place = len(arrays)
    for index, (operator, own, more, first) in enumerate(following):
        inputs = list(range(place, place + len(more)))
        inputs.insert(1 if first else 0, total + index)
        steps.append(Step(operator, encode(own), tuple(inputs)))
        place += len(more)
    return "fused", FusedConfig(tuple(steps)), [*arrays, *others]


def linears(rows: tuple[int, ...], depth: int, channels: int, dtype: str = "int16") -> list[Call]:
    shape = (*rows, depth)
    return product_calls("linear", LinearConfig, shape, (channels, depth), ("int8", dtype))


def calls() -> list[Call]:
    result: list[Call] = []
    silu = ("pwl8", SILU.config, [SILU.slope, SILU.base], False)
    for rows, depth, channels in [((1,), 7, 21), ((1, 13), 24, 48)]:
        for anchor in linears(rows, depth, channels):
            result.append(chain(anchor, silu))
    for anchor in linears((2, 11), 33, 10):
        result.append(chain(anchor, ("add", ADD, [codes("int8", 2, 11, 10)], False)))
    for anchor in linears((1, 9), 16, 21)[:2]:
        wide, code = codes("int16", 1, 9, 21), codes("int8", 1, 9, 21)
        flipped = add_config(0.5, 0, 1.0, 0, 1.2, 0, -32768, 32767, "int16", "int16", "int16")
        result.append(chain(anchor, ("add", flipped, [wide], True)))
        narrow = ("requantize", NARROW, [], False)
        result.append(chain(anchor, ("add", SUM16, [wide], False), narrow))
        result.append(chain(anchor, ("mul", MUL, [code], False)))
        result.append(chain(anchor, ("mul", MUL, [codes("int8", 21)], False)))  # one per channel
        kink = ("pwl8", KINK.config, [KINK.slope, KINK.base], False)
        result.append(chain(anchor, kink))
        result.append(chain(anchor, ("scaled_add", SCALED, [wide, LEFT, RIGHT], False)))
    values, _ = adalog_table(19, 37, 8)
    pwl = ("pwl", GELU.config, [GELU.slope, GELU.base], False)
    lut = ("lut", LutConfig("int16"), [values], False)
    for anchor in linears((1, 9), 16, 85):
        result.append(chain(anchor, pwl, ("adalog_quantize", LOG, [], False), lut))
    for anchor in linears((1, 9), 16, 21, "int8"):
        result.append(chain(anchor, ("lut", LutConfig("int8"), [codes("int8", 256)], False)))
    return result


def padded() -> list[Call]:
    silu = ("pwl8", SILU.config, [SILU.slope, SILU.base], False)
    result: list[Call] = []
    for before, after in [((1, 1), (1, 1)), ((2, 0), (0, 3))]:
        pad = ("pad", PadConfig(before, after, -120), [], False)
        for anchor in linears((1, 5, 7), 12, 19):
            result.append(chain(anchor, silu, pad))
        make = partial(Conv2dConfig, **GEOMETRY)
        convolutions = product_calls("conv2d", make, (1, 6, 8, 5), (18, 3, 3, 5), ("int8", "int8"))
        result += [chain(anchor, pad) for anchor in convolutions]
    return result


@pytest.mark.parametrize("isa", EVERY_ISA)
@pytest.mark.parametrize("make", [calls, padded], ids=lambda make: make.__name__)
def test_fused_kernels_equal_their_steps(make, isa: str) -> None:
    check_all(make(), isa)


def test_the_type_of_every_case_is_that_of_its_last_step() -> None:
    for name, config, arrays in calls():
        specs = [TensorSpec(array.shape, str(array.dtype)) for array in arrays]
        assert OPERATORS[name].infer(config, specs).dtype in ("int8", "int16")
