"""Products whose weights are stored in fewer than eight bits: bit for bit, and when they are."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tvm_passes.kernels.test_fused_kernel import SILU, chain
from tests.tvm_passes.product_calls import product_calls
from tests.tvm_passes.run_kernel import EVERY_ISA, Call, check_all
from tvm_passes.kernels.bit_planes import PLANES
from tvm_passes.kernels.gemm_tile import Access
from tvm_passes.kernels.gemm_weights import weight_dtype, weight_layout
from tvm_passes.kernels.isa import ISAS
from tvm_passes.kernels.registry import KERNELS
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig
from tvm_passes.ops.pad import PadConfig

BITS = sorted(PLANES)


def codes(bits: int, shape: tuple[int, ...], ragged: bool) -> np.ndarray:
    """Weights that span ``bits`` bits in every row, each from a code of its own on.

    Args:
        bits: width.
        shape: output channels first.
        ragged: whether zero is among the codes of every row.
    """
    rng = np.random.default_rng(bits)
    top = (1 << bits) - 1
    low, high = (-top, 0) if ragged else (-127, 127 - top)
    drawn = rng.integers(0, top + 1, (shape[0], int(np.prod(shape[1:]))))
    drawn[:, 0], drawn[:, -1] = 0, top
    return (drawn + rng.integers(low, high + 1, (shape[0], 1))).reshape(shape).astype(np.int8)


def narrowed(call: Call, bits: int) -> Call:
    """The same call with weights of ``bits`` bits."""
    name, config, arrays = call
    return name, config, [arrays[0], codes(bits, arrays[1].shape, True), *arrays[2:]]


def stored_dtype(call: Call, isa: str) -> str:
    """The type that the weights of a call are stored in."""
    name, config, arrays = call
    specs = [TensorSpec(array.shape, str(array.dtype)) for array in arrays]
    return KERNELS[name].stored(config, specs, dict(enumerate(arrays)), ISAS[isa])[1].dtype


def linear(
    rows: tuple[int, ...], depth: int, channels: int, dtypes: tuple[str, str] = ("int8", "int8")
) -> Call:
    return product_calls("linear", LinearConfig, (*rows, depth), (channels, depth), dtypes)[0]


ONE_ROW = linear((1,), 192, 70, ("int8", "int32"))
SEVERAL_BLOCKS = linear((2, 67), 132, 81)  # of pixels, and several panels
OTHERS = [
    (3, linear((1, 6), 75, 33, ("uint8", "int8"))),
    (5, linear((90,), 64, 35, ("int16", "int8"))),
    (6, linear((1, 40), 512, 96)),  # unpacked by several threads
]


def convolutions() -> list[Call]:
    result = []
    for size, channels, filters, strides, dilation, dtypes in [
        ((9, 11), 16, 37, (2, 2), (1, 1), ("int8", "int8")),
        ((7, 30), 11, 18, (1, 1), (1, 2), ("uint8", "int16")),
        ((6, 6), 12, 20, (1, 1), (1, 1), ("int16", "int8")),
    ]:
        config = partial(Conv2dConfig, strides=strides, dilation=dilation, groups=1)
        shapes = (1, *size, channels), (filters, 3, 3, channels)
        result.append(product_calls("conv2d", config, *shapes, dtypes)[0])
    return result


def fused() -> list[Call]:
    """With a table, and stored into a padded map."""
    shapes = (1, 9, 8, 64), (40, 64)
    (anchor, *_) = product_calls("linear", LinearConfig, *shapes, ("int8", "int16"))
    silu = ("pwl8", SILU.config, [SILU.slope, SILU.base], False)
    pad = ("pad", PadConfig((1, 1), (1, 1), -120), [], False)
    return [chain(anchor, silu), chain(anchor, silu, pad)]


@pytest.mark.parametrize("isa", EVERY_ISA)
def test_linears_of_every_width_equal_their_references(isa: str) -> None:
    calls = [narrowed(call, bits) for call in (ONE_ROW, SEVERAL_BLOCKS) for bits in BITS]
    calls += [narrowed(call, bits) for bits, call in OTHERS]
    assert all(stored_dtype(call, isa) != "int8" for call in calls)
    check_all(calls, isa)


@pytest.mark.parametrize("isa", EVERY_ISA)
def test_packed_convolutions_and_fused_products_equal_their_references(isa: str) -> None:
    plain = [*convolutions(), *fused()]
    calls = [narrowed(call, bits) for call, bits in zip(plain, (4, 3, 6, 5, 2), strict=True)]
    assert all(stored_dtype(call, isa) != "int8" for call in calls)
    check_all(calls, isa)


@pytest.mark.parametrize("isa", EVERY_ISA)
@pytest.mark.parametrize("bits", [3, 4])
def test_packed_products_with_a_relu_in_few_bits_equal_their_references(
    isa: str, bits: int
) -> None:
    """The zero point is the least code, as ReLU has it, and sums below it are clamped."""
    name, config, arrays = narrowed(SEVERAL_BLOCKS, bits)
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    clamped = replace(config, zero_point=low, qmin=low, qmax=high)
    reference = OPERATORS[name].reference(clamped, *arrays)
    assert np.mean(reference == low) > 0.1 and np.mean(reference == high) > 0.1
    check_all([(name, clamped, arrays)], isa)


def linear_access(columns: int, depth: int) -> Access:
    return Access(1, columns, 0, depth, 1, 1, 0, 0, depth)


@settings(max_examples=60, deadline=None)
@given(
    isa=st.sampled_from(sorted(ISAS)),
    bits=st.sampled_from(BITS),
    channels=st.integers(1, 70),
    depth=st.integers(1, 300),
    x_dtype=st.sampled_from(["int8", "uint8", "int16"]),
)
def test_the_narrowest_type_that_saves_bytes_is_taken(
    isa: str, bits: int, channels: int, depth: int, x_dtype: str
) -> None:
    """And all weights fit it, whatever the number of channels and the depth."""
    access, level = linear_access(9, depth), ISAS[isa]
    rows = codes(bits, (channels, depth), depth % 8 != 0)
    dtype = weight_dtype(rows, access, x_dtype, level)
    layouts = {
        each: weight_layout(access, channels, x_dtype, each, level) for each in (dtype, "int8")
    }
    sizes = {each: layout.pack(rows, 1).nbytes for each, layout in layouts.items()}
    assert sizes == {each: layout.spec.shape[0] for each, layout in layouts.items()}
    assert dtype == "int8" or sizes[dtype] < sizes["int8"]
    if depth >= 128:
        assert dtype == f"int{bits}"


@pytest.mark.parametrize("isa", ISAS)
def test_the_width_follows_from_the_span_of_every_row(isa: str) -> None:
    access = linear_access(9, 128)
    rows = np.zeros((3, 128), np.int8)
    rows[:, ::2] = np.array([[-100], [3], [60]])  # spans of 100, 3 and 60
    rows[:, 1::2] = np.array([[-90], [0], [64]])
    assert weight_dtype(rows, access, "int8", ISAS[isa]) == "int4"
    rows[1, 0] = 16
    assert weight_dtype(rows, access, "int8", ISAS[isa]) == "int5"
    rows[1, 0] = 64
    assert weight_dtype(rows, access, "int8", ISAS[isa]) == "int8"


def test_zeros_that_fill_groups_are_among_the_codes() -> None:
    """Runs of 129 codes end in a group of which most was counted before."""
    rows = np.full((3, 129), 100, np.int8)
    assert weight_dtype(rows, linear_access(9, 129), "int8", ISAS["neon-dotprod"]) == "int8"
    assert weight_dtype(rows[:, :128], linear_access(9, 128), "int8", ISAS["neon"]) == "int2"


def test_depthwise_weights_stay_as_they_are() -> None:
    make = partial(Conv2dConfig, strides=(1, 1), dilation=(1, 1), groups=64)
    call = product_calls("conv2d", make, (1, 9, 9, 64), (64, 3, 3, 1), ("int8", "int8"))[0]
    assert stored_dtype(narrowed(call, 3), "neon-dotprod") == "int8"


def test_what_is_stored_does_not_depend_on_the_schedule() -> None:
    rows, access = codes(4, (70, 96), False), linear_access(50, 96)
    layout = weight_layout(access, 70, "int8", "int4", ISAS["neon-i8mm"])
    np.testing.assert_array_equal(layout.pack(rows, 1), layout.pack(rows, 4))


@pytest.mark.parametrize("isa", ISAS)
def test_weights_of_eight_bits_stay_as_they_are(isa: str) -> None:
    for call in (ONE_ROW, SEVERAL_BLOCKS):
        assert stored_dtype(call, isa) == "int8"
