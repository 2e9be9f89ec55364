"""The attention kernels equal their references bit for bit."""

from collections.abc import Callable
from itertools import product
from math import log

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.tvm_passes.run_kernel import EVERY_ISA, Call, Case, check_all, run_kernels
from tvm_passes.kernels.attention_schedule import (
    AnyConfig,
    AttentionShape,
    default_schedule,
    schedules,
)
from tvm_passes.kernels.isa import ISAS, Isa
from tvm_passes.kernels.registry import KERNELS
from tvm_passes.ops.adalog_attention import adalog_attention_config
from tvm_passes.ops.attention import GREATEST_BIAS, AttentionConfig, attention_config
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.pointwise import adalog_table
from tvm_passes.ops.uniform_attention import uniform_attention_config

# batch, heads, queries, keys, D, Dv, octaves of a step of the logits, zero points of q, v and the
# output, dtype of the output, shape of the bias
CASES: list[tuple[tuple[int, ...], float, tuple[int, int, int], str, tuple[int, ...] | None]] = [
    ((1, 1, 1, 1, 1, 1), 1e-4, (0, 0, 0), "int8", None),
    ((2, 3, 7, 49, 20, 20), 3e-5, (0, 0, -3), "int8", None),
    ((1, 2, 16, 64, 24, 24), 2e-4, (0, 5, 9), "int8", None),
    ((1, 2, 5, 197, 64, 64), 1e-5, (3, 0, 0), "int8", None),
    ((1, 4, 9, 49, 32, 128), 2e-4, (0, 0, 0), "int16", (1, 4, 9, 49)),
    ((1, 2, 5, 30, 16, 16), 4e-3, (-128, 127, 1), "int8", None),
    ((2, 2, 5, 31, 18, 7), 3e-4, (9, -128, 0), "int16", (2, 1, 1, 31)),
    ((2, 1, 3, 16, 16, 18), 3e-4, (0, 0, 0), "int8", (3, 1)),
    ((1, 1, 2, 512, 8, 3), 1e-6, (127, 127, 0), "int8", None),
    ((1, 2, 4, 13, 5, 33), 0.7, (1, 1, 1), "int8", (2, 1, 13)),
    ((1, 2, 9, 3, 6, 6), 1e-3, (2, 0, 0), "int16", None),
]


LONG_ROWS = [
    ((1, 2, 3, 601, 6, 6), 1e-5, (0, 127, 0), "int16", None),
    ((1, 2, 4, 3136, 6, 9), 3e-6, (5, 0, 0), "int8", None),
    ((1, 1, 3, 12544, 5, 5), 1e-4, (0, -128, 3), "int8", None),
]


def config(heads: int, octaves: float, zeros: tuple[int, int, int], dtype: str) -> AttentionConfig:
    ratio = 1.7 if dtype == "int8" else 150.0
    return attention_config(heads, octaves * log(2), ratio, *zeros, dtype)


def operands(shape: tuple[int, ...]) -> list[list[NDArray[np.int8]]]:
    """q, k and v: random, extremes at random, equal, and greatest sums."""
    rng = np.random.default_rng(0)
    batch, heads, queries, keys, width, value_width = shape
    shapes = [(batch, n, heads * d) for n, d in ((queries, width), (keys, width))]
    shapes.append((batch, keys, heads * value_width))
    return [
        [rng.integers(-128, 128, s).astype(np.int8) for s in shapes],
        [rng.choice([-128, 127], s).astype(np.int8) for s in shapes],
        [np.full(s, -128, np.int8) for s in shapes],
        [np.full(s, value, np.int8) for s, value in zip(shapes, (127, -128, 127), strict=True)],
    ]


def logit_bias(shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Small values, and the extremes of masks."""
    rng = np.random.default_rng(1)
    mask = rng.choice([0, -(2**24), GREATEST_BIAS, -GREATEST_BIAS], shape)
    values = rng.integers(-20000, 20000, shape)
    return np.where(rng.random(shape) < 0.7, values, mask).astype(np.int32)


def calls() -> list[Call]:
    result: list[Call] = []
    for shape, octaves, zeros, dtype, bias in [*CASES, *LONG_ROWS]:
        made = config(shape[1], octaves, zeros, dtype)
        extra = [] if bias is None else [logit_bias(bias)]
        for arrays in operands(shape):
            result.append(("attention", made, [*arrays, *extra]))
    return result


def adalog_calls() -> list[Call]:
    """The same operands; codes of 8, 6, 4 and 3 bits, so that tables of every size are reached."""
    result: list[Call] = []
    formats = [(2, 37, 8), (7, 37, 6), (1, 2, 4), (1, 37, 8), (1, 1, 3), (5, 37, 7)]
    for index, (shape, octaves, (zero_q, _, zero_point), dtype, bias) in enumerate(CASES):
        q, r, bits = formats[index % len(formats)]
        table, unit = adalog_table(q, r, bits)
        ratio = unit * (1.7 if dtype == "int8" else 150.0)
        made = adalog_attention_config(
            *(shape[1], octaves * log(2), r / q, bits, ratio, 1.0 + index % 2),
            zero_q=zero_q,
            zero_point=zero_point,
            dtype=dtype,
        )
        extra = [] if bias is None else [logit_bias(bias)]
        for arrays in operands(shape):
            result.append(("adalog_attention", made, [*arrays, table, *extra]))
    return result


def uniform_calls() -> list[Call]:
    """The same operands; probabilities of 8, 4 and 1 bits, and clipped ones."""
    result: list[Call] = []
    formats = [(2.0**-8, 255), (1 / 15, 15), (1 / 900, 255), (1.0, 1), (1 / 127, 127)]
    for index, (shape, octaves, zeros, dtype, bias) in enumerate(CASES):
        step, code_max = formats[index % len(formats)]
        ratio = min(step * (1.7 if dtype == "int8" else 150.0), 0.99)
        form = octaves * log(2), step, code_max, ratio
        made = uniform_attention_config(shape[1], *form, *zeros, dtype)
        extra = [] if bias is None else [logit_bias(bias)]
        for arrays in operands(shape):
            result.append(("uniform_attention", made, [*arrays, *extra]))
    return result


# octaves of a step of the logits of each head: finer than a Q10 octave, coarser, both
HEADS = [(3e-5, 5e-4), (0.7, 4e-3), (1e-6, 2e-4, 9e-4, 0.1), (2e-4, 2e-4), (4e-4, 1e-4, 3e-3)]


def head_calls() -> list[Call]:
    """Heads with scales of their own."""
    result: list[Call] = []
    for index, octaves in enumerate(HEADS):
        heads = len(octaves)
        bias = [] if index % 2 else [logit_bias((heads, 5, 29))]
        scales = np.array(octaves) * log(2)
        ratios = 1.3 * 2.0 ** np.linspace(-3, 3, heads)
        made = attention_config(heads, scales, ratios, 3, index, -2)
        table, unit = adalog_table(9, 37, 5)
        log_made = adalog_attention_config(heads, scales, 37 / 9, 5, unit * ratios, zero_q=index)
        code_made = uniform_attention_config(heads, scales, 1 / 15, 15, ratios / 15, 2, index)
        for arrays in operands((1, heads, 5, 29, 17, 8 + index)):
            result.append(("uniform_attention", code_made, [*arrays, *bias]))
            result.append(("attention", made, [*arrays, *bias]))
            result.append(("adalog_attention", log_made, [*arrays, table, *bias]))
    return result


@pytest.mark.parametrize("isa", EVERY_ISA)
@pytest.mark.parametrize(
    "made",
    [calls, adalog_calls, uniform_calls, head_calls],
    ids=["softmax", "adalog", "uniform", "heads"],
)
def test_kernels_equal_their_references(made: Callable[[], list[Call]], isa: str) -> None:
    check_all(made(), isa)


@pytest.mark.parametrize("isa", ["neon-dotprod", "neon-i8mm", "avx512vnni", "avx2"])
@pytest.mark.parametrize("name", ["attention", "uniform_attention"])
def test_every_schedule_computes_the_same(name: str, isa: str) -> None:
    (arrays, *_) = operands((1, 2, 6, 67, 20, 37))
    made: AnyConfig = config(2, 2e-4, (0, 4, 0), "int8")
    if name == "uniform_attention":
        made = uniform_attention_config(2, 2e-4 * log(2), 2.0**-8, 255, 0.01, 0, 4)
    specs = [TensorSpec(array.shape, "int8") for array in arrays]
    out = OPERATORS[name].infer(made, specs)
    every = list(schedules(AttentionShape.of(made, specs), ISAS[isa]))
    picked = np.random.default_rng(2).choice(len(every), min(len(every), 8), replace=False)
    kernels = [KERNELS[name](made, specs, ISAS[isa], every[index]) for index in picked]
    expected = OPERATORS[name].reference(made, *arrays)
    for got in run_kernels([Case(kernel, arrays, out) for kernel in kernels], isa):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
def test_tiles_fit_the_registers(isa: Isa) -> None:
    sizes = ((256, 256, 16, 16), (197, 197, 64, 64), (49, 49, 32, 128), (1, 1, 1, 1))
    for extents, weights in product(sizes, (1, 2)):
        shape = AttentionShape(1, 1, *extents, weights)
        parts = weights if isa.dot else 1
        found = list(schedules(shape, isa))
        assert found[0] == default_schedule(shape, isa) and len(found) == len(set(found))
        for tile in found:
            assert tile.rows <= shape.queries and tile.rows % tile.value_rows == 0
            for codes, vectors in (
                (tile.rows, tile.key_vectors),
                (tile.value_rows * parts, tile.value_vectors),
            ):
                assert codes * vectors + codes + vectors <= isa.registers
