"""``pad``: bit for bit, borders of every width on every side."""

import pytest

from tests.tvm_passes.run_kernel import EVERY_ISA, Call, check_all, codes
from tvm_passes.ops.pad import PadConfig

# shape, before, after, value, dtype
CASES = [
    ((1, 1, 1, 1), (1, 1), (1, 1), -128, "int8"),
    ((1, 1, 1, 3), (0, 2), (3, 0), 127, "int8"),
    ((1, 3, 5, 7), (0, 1), (1, 0), 255, "uint8"),
    ((1, 4, 2, 33), (2, 2), (2, 2), 0, "int16"),
    ((1, 2, 9, 3), (1, 1), (0, 0), -32768, "int16"),
    ((1, 6, 6, 16), (0, 0), (1, 1), 9, "int8"),
    ((2, 3, 5, 7), (2, 1), (1, 3), -9, "int8"),  # more than one image
    ((1, 2, 9, 33), (1, 0), (0, 0), 5, "int8"),  # nothing beside the rows
    ((1, 3, 11, 48), (1, 1), (1, 1), 3, "int8"),  # rows of several steps
    ((1, 2, 3, 2), (0, 0), (0, 0), 1, "int16"),
]


def pads() -> list[Call]:
    return [
        ("pad", PadConfig(before, after, value), [codes(dtype, *shape)])
        for shape, before, after, value, dtype in CASES
    ]


@pytest.mark.parametrize("isa", EVERY_ISA)
def test_borders_equal_their_reference(isa: str) -> None:
    check_all(pads(), isa)
