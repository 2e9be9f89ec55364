"""Permutations, slices and joins: the copies equal NumPy's, whatever the shape."""

from collections.abc import Callable

import numpy as np
import pytest
from tvm import relax

from tests.tvm_passes.modules import build
from tests.tvm_passes.run_kernel import EVERY_ISA, Case, codes, run_kernels
from tvm_passes.graph.moves import copies_of
from tvm_passes.interpret import interpret
from tvm_passes.kernels.movement import Copy, copy_kernel, row_major
from tvm_passes.ops.base import TensorSpec

Shape = tuple[int, ...]
Move = Callable[..., relax.Expr]

PERMUTATIONS: list[tuple[Shape, list[int], str]] = [
    ((5,), [0], "int8"),
    ((3, 1, 2), [2, 1, 0], "int8"),
    # rows stay whole: shorter than a register, longer, neither
    ((4, 3, 2, 5, 7), [1, 3, 0, 2, 4], "int8"),
    ((2, 3, 3), [1, 0, 2], "int16"),
    ((3, 2, 20), [1, 0, 2], "int8"),
    ((3, 2, 131), [1, 0, 2], "uint8"),
    ((2, 5, 65), [1, 0, 2], "int32"),
    # blocks are turned: squares, more of one side, overlapping ends, outer axes
    ((16, 16), [1, 0], "int8"),
    ((8, 37), [1, 0], "int16"),
    ((37, 8), [1, 0], "int8"),
    ((4, 37), [1, 0], "int8"),
    ((37, 5), [1, 0], "int16"),
    ((9, 6), [1, 0], "int32"),
    ((3, 19, 2, 18), [2, 3, 0, 1], "int8"),
    ((2, 17, 3, 33), [0, 3, 2, 1], "uint8"),
    # too narrow for blocks
    ((3, 40), [1, 0], "int16"),
    ((2, 3, 5), [2, 0, 1], "int8"),
]
SLICES: list[tuple[Shape, list[tuple[int, int, int, int]], str]] = [  # axis, begin, end, step
    ((4, 5, 7), [(1, 1, 4, 1)], "int8"),
    ((4, 5, 37), [(2, 3, 36, 1)], "int16"),
    ((6, 7), [(0, 2, 6, 1), (1, 0, 7, 1)], "int32"),
    ((6, 7), [(0, 1, 6, 2), (-1, 0, 100, 3)], "int8"),
    ((2, 9, 33), [(1, 0, 9, 4)], "uint8"),
]
JOINS: list[tuple[list[Shape], int, str]] = [
    ([(2, 3, 48), (2, 3, 16)], -1, "int8"),
    ([(2, 3, 7), (2, 1, 7), (2, 4, 7)], 1, "int16"),
    ([(1, 5), (150, 5)], 0, "int32"),
    ([(4, 1), (4, 1), (4, 2)], 1, "uint8"),
]


def moves() -> list[tuple[list[tuple[Shape, str]], Move]]:
    """Shapes and dtypes of the inputs, and the operator on them."""
    result: list[tuple[list[tuple[Shape, str]], Move]] = []
    for shape, axes, dtype in PERMUTATIONS:
        result.append(([(shape, dtype)], lambda x, a=axes: relax.op.permute_dims(x, a)))
    for shape, cuts, dtype in SLICES:
        parts = [list(part) for part in zip(*cuts, strict=True)]
        result.append(([(shape, dtype)], lambda x, p=parts: relax.op.strided_slice(x, *p)))
    for shapes, axis, dtype in JOINS:
        inputs = [(shape, dtype) for shape in shapes]
        result.append((inputs, lambda *x, a=axis: relax.op.concat(list(x), a)))
    return result


@pytest.mark.parametrize("isa", EVERY_ISA)
def test_copies_equal_numpy(isa: str) -> None:
    cases, expected = [], []
    for inputs, move in moves():
        mod = build(inputs, lambda graph, *x, move=move: graph.emit(move(*x)))
        arrays = [codes(dtype, *shape) for shape, dtype in inputs]
        expected.append(interpret(mod, *arrays))
        variables = [relax.Var("x", relax.TensorType(*spec)) for spec in inputs]
        call = relax.BlockBuilder().normalize(move(*variables))
        copies = copies_of(call)
        assert copies is not None
        out = TensorSpec.of(call)
        specs = [TensorSpec(shape, dtype) for shape, dtype in inputs]
        cases.append(Case(copy_kernel(copies, specs, out), arrays, out))
    for got, wanted, (inputs, _) in zip(run_kernels(cases, isa), expected, moves(), strict=True):
        np.testing.assert_array_equal(got, wanted, err_msg=str(inputs))


def test_axes_that_stay_neighbours_are_copied_as_one() -> None:
    reads = row_major((4, 3, 2, 5))
    copy = Copy((3, 4, 2, 5), (reads[1], reads[0], *reads[2:]), row_major((3, 4, 2, 5)))
    assert copy.simplified() == Copy((3, 4, 10), (10, 30, 1), (40, 10, 1))
    assert Copy((2, 3), (3, 1), (3, 1), 5, 7).simplified() == Copy((6,), (1,), (1,), 5, 7)
    assert Copy((1, 1), (1, 1), (1, 1)).simplified() == Copy((1,), (1,), (1,))


def test_other_operators_are_no_copies() -> None:
    x = relax.Var("x", relax.TensorType((2, 3), "int8"))
    assert copies_of(relax.BlockBuilder().normalize(relax.op.reshape(x, (6,)))) is None
    assert copies_of(x) is None
