"""Kernels of sums, products and changes of format equal their references bit for bit."""

from itertools import product

import numpy as np
import pytest

import tvm_passes.kernels.elementwise  # noqa: F401, registers the kernels
from tests.tvm_passes.run_kernel import ARM_ISAS, HOST_ISAS, Call, check_all, codes
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.add import add_config, scaled_add_config
from tvm_passes.ops.elementwise import mul_config, requantize_config

# shapes of a and b: equal, bias, broadcast inside, broadcast of both, scalar, one element
SHAPES = [
    ((2, 5, 19), (2, 5, 19)),
    ((1, 7, 3, 33), (33,)),
    ((1, 4, 5, 16), (1, 4, 1, 16)),
    ((3, 1, 5), (1, 4, 1)),
    ((2, 3, 40), (1, 1, 1)),
    ((1, 1), (1,)),
]
DTYPES = [("int8", "int8"), ("int16", "int8"), ("int16", "int16")]
INT8, INT16 = (-128, 127, "int8"), (-32767, 32767, "int16")


def zero_points(a_type: str, b_type: str) -> tuple[int, int]:
    return (5 if a_type == "int8" else 0), (-128 if b_type == "int8" else 0)


def sums() -> list[Call]:
    calls: list[Call] = []
    for a_shape, b_shape in SHAPES:
        for a_type, b_type in DTYPES:
            za, zb = zero_points(a_type, b_type)
            a, b = codes(a_type, *a_shape), codes(b_type, *b_shape)
            config = add_config(0.02, za, -0.013, zb, 0.025, 3, *INT8, a_type, b_type)
            calls.append(("add", config, [a, b]))
            factors = np.random.default_rng(0).normal(size=a_shape[-1]) * 0.01
            scaled, ma, mb = scaled_add_config(
                factors, za, 0.02, zb, 0.02, 0, *INT16, a_type, b_type
            )
            calls.append(("scaled_add", scaled, [a, b, ma, mb]))
    extremes = [np.full((3, 33), value, np.int16) for value in (-32768, 32767)]
    greatest = add_config(1.0, 0, 1.0, 0, 1.0, 0, *INT16, "int16", "int16")
    fine = add_config(1e-5, 0, -1e-5, 0, 2.56e-3, 3, *INT8, "int16", "int16")  # a shift above 16
    for config, b in product((greatest, fine), extremes):
        calls += [("add", config, [a, b]) for a in extremes]
    return calls


def products() -> list[Call]:
    calls: list[Call] = []
    for a_shape, b_shape in SHAPES:
        for a_type, b_type in DTYPES:
            za, zb = zero_points(a_type, b_type)
            for out_scale in (0.02, 1e-5):  # the second needs a pre-shift and saturates
                config = mul_config(0.02, za, 0.013, zb, out_scale, 3, *INT8, a_type, b_type)
                calls.append(("mul", config, [codes(a_type, *a_shape), codes(b_type, *b_shape)]))
    return calls


def formats() -> list[Call]:
    calls: list[Call] = []
    for source, target, ratio in [
        ("int8", "int16", 200.0),
        ("int16", "int8", 0.004),
        ("int32", "int8", 1e-7),
        ("int32", "int16", 30000.0),
        ("int32", "int32", 1.0),
        ("int32", "int32", 2.0**-32),
        ("int8", "int32", 7.0),
        ("uint8", "int8", 1.0),
        ("int16", "uint8", 0.01),
    ]:
        zero = 7 if source == "int8" else 0
        qmin, qmax = INT_RANGE[target]
        config = requantize_config(ratio, zero, 1.0, 3, qmin, qmax, target)
        calls.append(("requantize", config, [codes(source, 3, 37)]))
    return calls


@pytest.mark.parametrize("isa", HOST_ISAS + ARM_ISAS)
@pytest.mark.parametrize("calls", [sums, products, formats], ids=lambda family: family.__name__)
def test_kernels_equal_their_references(calls, isa: str) -> None:
    check_all(calls(), isa)
