"""``matmul``: bit for bit over odd shapes, zero points at the extremes, raw accumulators."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

from tests.tvm_passes.run_kernel import EVERY_ISA, Call, Case, check_all, run_kernels
from tvm_passes.kernels.dot import planes
from tvm_passes.kernels.isa import ISAS, Isa
from tvm_passes.kernels.matmul import default_schedule, matmul, schedules
from tvm_passes.numerics import INT_RANGE, Rescale
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.matmul import MatmulConfig

# leading dimensions, M, K, N, dtype of a, zero points, dtype of the output (None: raw)
CASES = [
    ((), 1, 1, 1, "int8", (0, 0), "int8"),
    ((1, 3), 1, 16, 7, "int8", (5, -3), "int16"),
    ((2,), 5, 33, 16, "int8", (-128, 127), None),
    ((1, 2), 6, 49, 49, "int8", (0, 0), None),
    ((1, 1), 4, 64, 17, "int16", (0, -128), "int8"),
    ((1, 4), 3, 5, 32, "int16", (0, 9), "int8"),
    ((3,), 9, 2, 35, "int8", (127, -128), "int8"),
    ((), 7, 3, 6, "int16", (0, 0), "int16"),
    ((2,), 6, 24, 20, "int8", (-3, 4), None),
    ((1, 2), 8, 127, 5, "int16", (0, -7), "int8"),
]


def config(a: str, depth: int, zeros: tuple[int, int], out: str | None, swap: bool) -> MatmulConfig:
    if out is None:
        return MatmulConfig(swap, *zeros, True, 0, 0, 0, 0, 0, "int32")
    qmin, qmax = INT_RANGE[out]
    typical = (qmax - qmin) / 3 / (sqrt(depth) * (73 if a == "int8" else 18918) * 73)
    form = Rescale.from_real(typical)
    zero_point = -20 if out == "int8" else 0
    output = (form.left, int(form.multiplier), zero_point, qmin, qmax, out)
    return MatmulConfig(swap, *zeros, False, *output)


def products() -> list[Call]:
    """Random codes, random extremes, and the greatest sum; b as it is and transposed."""
    rng = np.random.default_rng(0)
    calls: list[Call] = []
    for index, (leading, m, k, n, dtype, zeros, out) in enumerate(CASES):
        swap = bool(index % 2)
        a_shape, b_shape = (*leading, m, k), (*leading, *((n, k) if swap else (k, n)))
        low, high = INT_RANGE[dtype]
        for a, b in (
            (rng.integers(low, high + 1, a_shape), rng.integers(-128, 128, b_shape)),
            (rng.choice([low, high], a_shape), rng.choice([-128, 127], b_shape)),
            (np.full(a_shape, low), np.full(b_shape, -128)),
            (np.full(a_shape, high), np.full(b_shape, -128)),
        ):
            made = config(dtype, k, zeros, out, swap)
            arrays = [a.astype(dtype), b.astype(np.int8)]
            calls.append(("matmul", made, arrays))
            if out is not None and len(leading) > 1:  # one multiplier for each head
                each = tuple(made.multiplier >> head for head in range(leading[-1]))
                calls.append(("matmul", replace(made, multiplier=each), arrays))
    return calls


@pytest.mark.parametrize("isa", EVERY_ISA)
def test_products_equal_their_references(isa: str) -> None:
    check_all(products(), isa)


def test_heads_are_brought_to_one_scale_of_32_bits() -> None:
    multipliers = tuple(int(Rescale.from_real([each, 1.0]).multiplier[0]) for each in (1, 0.7, 0.1))
    made = MatmulConfig(False, 3, 0, False, 1, multipliers, 0, *INT_RANGE["int32"], "int32")
    rng = np.random.default_rng(3)
    shapes = (2, 3, 5, 20), (2, 3, 20, 9)
    arrays = [rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes]
    for isa in ("avx512vnni", "portable", "neon-dotprod"):
        check_all([("matmul", made, arrays)], isa)


@pytest.mark.parametrize("transpose_b", [False, True])
def test_the_whole_int32_range_comes_out_raw(transpose_b: bool) -> None:
    a = np.array([[-32768] * 257, [32767] * 257], np.int16)
    b = np.full((257, 2), -128, np.int8)
    raw = MatmulConfig(transpose_b, 0, 127, True, 0, 0, 0, 0, 0, "int32")
    arrays = [a, np.ascontiguousarray(b.T) if transpose_b else b]
    check_all([("matmul", raw, arrays)], "portable")


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("isa", ["neon-i8mm", "avx512vnni", "portable"])
def test_every_schedule_computes_the_same(isa: str, dtype: str) -> None:
    made = config(dtype, 21, (0, 3), "int8", False)
    rng = np.random.default_rng(1)
    a = rng.integers(*INT_RANGE[dtype], (2, 7, 21)).astype(dtype)
    arrays = [a, rng.integers(-128, 128, (2, 21, 37)).astype(np.int8)]
    specs = [TensorSpec(array.shape, str(array.dtype)) for array in arrays]
    out = OPERATORS["matmul"].infer(made, specs)
    every = list(schedules(specs[0], 37, ISAS[isa]))
    picked = [every[index] for index in rng.choice(len(every), min(len(every), 8), replace=False)]
    cases = [Case(matmul(made, specs, ISAS[isa], schedule), arrays, out) for schedule in picked]
    expected = OPERATORS["matmul"].reference(made, *arrays)
    for got in run_kernels(cases, isa):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
def test_tiles_fit_the_registers(isa: Isa) -> None:
    for dtype in ("int8", "int16"):
        for rows, columns in ((1, 1), (49, 49), (196, 64), (3, 1000)):
            a = TensorSpec((rows, 32), dtype)
            found = list(schedules(a, columns, isa))
            assert found[0] == default_schedule(a, columns, isa) and len(found) == len(set(found))
            for tile in found:
                codes = tile.rows * planes(dtype, isa)
                assert tile.rows <= rows
                assert codes * tile.vectors + codes + tile.vectors <= isa.registers
