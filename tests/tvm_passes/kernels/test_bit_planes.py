"""Bit planes: what is packed comes back, and takes the bytes that its width says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tvm_passes.run_kernel import run_kernel
from tvm_passes.kernels.bit_planes import PLANES, Strip
from tvm_passes.kernels.builder import build_kernel, int32
from tvm_passes.kernels.registry import Kernel
from tvm_passes.ops.base import TensorSpec

# lanes, width, register: of every instruction set, with dot products and without
FORMS = [(16, 4, 64), (4, 4, 16), (4, 8, 16), (16, 1, 64), (8, 1, 32), (4, 1, 16)]


def unpacked(strip: Strip, packed: np.ndarray, least: np.ndarray, gap: int) -> np.ndarray:
    """The codes again, [cells, lanes, width], stored ``gap`` bytes apart."""
    stored = np.concatenate([packed, least.view(np.uint8)])
    own = strip.lanes * strip.width
    out = TensorSpec((strip.cells, own + gap), "int8")
    with build_kernel([TensorSpec(stored.shape, "uint8"), out]) as builder:
        source, codes = builder.buffers
        strip.unpack(source, int32(0), int32(strip.nbytes), codes, int32(0), own + gap)
    result = run_kernel(Kernel(builder.func), [stored], out, "portable")
    return result[:, :own].reshape(strip.cells, strip.lanes, strip.width)


@settings(max_examples=40, deadline=None)
@given(
    bits=st.sampled_from(sorted(PLANES)),
    form=st.sampled_from(FORMS),
    cells=st.integers(1, 70),
    gap=st.sampled_from([0, 16]),
    seed=st.integers(0, 999),
)
def test_unpacking_is_the_inverse_of_packing(
    bits: int, form: tuple[int, int, int], cells: int, gap: int, seed: int
) -> None:
    lanes, width, register = form
    strip = Strip(bits, lanes, width, cells, register)
    rng = np.random.default_rng(seed)
    least = rng.integers(-128, 128 - (1 << bits) + 1, (lanes, 1))
    codes = (least + rng.integers(0, 1 << bits, (cells, lanes, width))).astype(np.int8)
    packed, lowest = strip.pack(codes)
    assert packed.shape == (strip.nbytes,)
    np.testing.assert_array_equal(unpacked(strip, packed, lowest, gap), codes)


@pytest.mark.parametrize("bits", PLANES)
def test_a_plane_takes_as_many_bits_as_it_has(bits: int) -> None:
    assert Strip(bits, 4, 4, 64, 16).nbytes * 8 == 64 * 16 * bits


def test_codes_that_do_not_fit_are_refused() -> None:
    codes = np.zeros((2, 4, 4), np.int8)
    codes[0, 0, 0] = 16
    with pytest.raises(AssertionError, match="more than 4 bits"):
        Strip(4, 4, 4, 2, 16).pack(codes)


def test_the_first_vector_lies_in_the_lowest_bits() -> None:
    codes = np.zeros((2, 4, 4), np.int8)
    codes[0], codes[1] = 3, 9
    codes[:, :, 0] = 0
    packed, least = Strip(4, 4, 4, 2, 16).pack(codes)
    np.testing.assert_array_equal(packed.reshape(4, 4)[:, 1:], 0x93)
    np.testing.assert_array_equal(packed.reshape(4, 4)[:, 0], 0)
    np.testing.assert_array_equal(least, 0)
