"""The layer_norm kernel equals its reference bit for bit."""

import numpy as np
import pytest

import tvm_passes.kernels.norm  # noqa: F401, registers the kernel
from tests.tvm_passes.run_kernel import ARM_ISAS, HOST_ISAS, Call, check_all, codes
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.norm import layer_norm_config

ROWS = [  # dtype, rows, length
    ("int8", 9, 64),
    ("int8", 3, 1),
    ("int8", 3, 37),
    ("int8", 1, 65_536),
    ("int8", 1, 100_001),
    ("uint8", 2, 40),
    ("int16", 5, 192),
    ("int16", 5, 75),
    ("int16", 1, 100_000),
    ("int16", 1, 262_160),
]


def calls() -> list[Call]:
    result: list[Call] = []
    for source, rows, length in ROWS:
        low, high = INT_RANGE[source]
        one = np.zeros((rows, length), source)
        one[:, 0] = 1
        inputs = [
            codes(source, rows, length),
            np.full((rows, length), low, source),
            np.full((rows, length), high, source),
            np.where(np.arange(rows * length) % 2, low, high).reshape(rows, length).astype(source),
            (codes("uint8", rows, length) % 4).astype(source),
            one,
        ]
        outputs = [(0.03, -5, -128, 127, "int8"), (8 / 32767, 0, -32767, 32767, "int16")]
        if length in (1, 37, 192):  # every value that a row may have
            outputs.append((length**0.5 / 2**27, 0, -(2**31) + 1, 2**31 - 1, "int32"))
        for output in outputs:
            config = layer_norm_config(0.01, 1e-5, *output, length=length, in_dtype=source)
            result += [("layer_norm", config, [x]) for x in inputs]
    return result


@pytest.mark.parametrize("isa", HOST_ISAS + ARM_ISAS)
def test_kernel_equals_its_reference(isa: str) -> None:
    check_all(calls(), isa)
