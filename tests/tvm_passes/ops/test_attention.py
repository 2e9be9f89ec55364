"""Attention against its definition in double precision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.ops.attention import MOST_KEYS, SHORT_ROW, attention_config, row_shift
from tvm_passes.ops.base import OPERATORS, TensorSpec

attention, infer = OPERATORS["attention"].reference, OPERATORS["attention"].infer
Float = NDArray[np.float64]
Int = NDArray[np.int8]

FINE = 2.0**-6  # of a step of v: int16 outputs as good as real numbers

seeds = st.integers(0, 2**32 - 1)
spreads = st.sampled_from([0.0, 1.0, 20.0, 70.0, 200.0])  # of the codes of q and k
octaves = st.sampled_from([1e-9, 1e-5, 1e-4, 7e-4, 2e-3, 0.1, 2.0])  # of a step of the logits


def heads_of(x: NDArray[np.generic], heads: int) -> Float:
    batch, tokens, width = x.shape
    split = x.astype(np.float64).reshape(batch, tokens, heads, width // heads)
    return split.transpose(0, 2, 1, 3)


def weights_of(q: Int, k: Int, heads: int, scale: float, zero_q: int, bias: object) -> Float:
    logits = (heads_of(q, heads) - zero_q) @ heads_of(k, heads).swapaxes(-1, -2)
    logits = (logits + (0 if bias is None else bias)) * scale
    weights: Float = np.exp(logits - logits.max(-1, keepdims=True))
    return weights


def mean_of(weights: Float, v: Int) -> Float:
    """[B, H, M, N] times [B, N, H*Dv] -> [B, M, H*Dv]."""
    heads = weights.shape[1]
    mean = weights / weights.sum(-1, keepdims=True) @ heads_of(v, heads)
    batch, _, tokens, width = mean.shape
    return mean.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * width)


def draw(seed: int, shape: tuple[int, ...], spread: float = 127.0) -> Int:
    normal = np.random.default_rng(seed).normal(size=shape) * spread
    return np.clip(np.round(normal), -128, 127).astype(np.int8)


def bound(weights: Float, v: Int) -> Float:
    """The error that the module promises, in steps of v: [B, M, H*Dv], equal over a head."""
    heads, keys = weights.shape[1], weights.shape[-1]
    values = heads_of(v, heads)
    span = (values.max(-2, keepdims=True) - values.min(-2, keepdims=True)).max(-1, keepdims=True)
    limit = span * (9e-4 + 1.54e-5 * keys / weights.sum(-1, keepdims=True))
    limit = limit + (span * keys / 2**23 if keys > SHORT_ROW else 0)
    spread = np.broadcast_to(limit, (*weights.shape[:-1], values.shape[-1]))
    return spread.transpose(0, 2, 1, 3).reshape(v.shape[0], weights.shape[2], v.shape[2])


@given(seeds, spreads, octaves, st.sampled_from([1, 2, 49, 197, 512, 513, 5000]), st.booleans())
def test_the_mean_is_within_the_promised_bound(
    seed: int, spread: float, octave: float, keys: int, biased: bool
) -> None:
    heads, width, scale = 2, 16, octave * np.log(2)
    q, k = draw(seed, (1, 3, heads * width), spread), draw(seed + 1, (1, keys, 32), spread)
    v = draw(seed + 2, (1, keys, heads * 5), 100)
    bias = draw(seed + 3, (heads, 1, keys), 3 / scale if scale > 0.1 else 90).astype(np.int32)
    arguments = [q, k, v, bias] if biased else [q, k, v]
    config = attention_config(heads, scale, 1 / FINE, 0, 7, 0, "int16")
    weights = weights_of(q, k, heads, scale, 0, bias if biased else None)
    error = np.abs(attention(config, *arguments) * FINE - (mean_of(weights, v) - 7))
    assert np.all(error <= bound(weights, v) + FINE * 0.51)


def test_typical_errors_are_hundredths_of_a_step() -> None:
    q, k, v = (draw(seed, (1, 197, 3 * 64), 40) for seed in range(3))
    for octave in (1e-5, 1e-4, 1e-3):
        config = attention_config(3, octave * np.log(2), 1 / FINE, dtype="int16")
        expected = mean_of(weights_of(q, k, 3, octave * np.log(2), 0, None), v)
        error = attention(config, q, k, v) * FINE - expected
        assert np.sqrt(np.mean(error**2)) < 0.01


def test_codes_are_rounded_once() -> None:
    q, k, v = (draw(seed, (2, 33, 4 * 20), 50) for seed in range(3))
    scale = 2e-4
    config = attention_config(4, scale, 1.7, 3, -9, 11)
    expected = 1.7 * (mean_of(weights_of(q, k, 4, scale, 3, None), v) + 9) + 11
    expected = np.clip(expected, -128, 127)
    assert np.abs(attention(config, q, k, v) - expected).max() < 0.6


def test_equal_logits_give_the_plain_mean() -> None:
    k = np.full((1, 300, 8), -128, np.int8)
    v = draw(0, (1, 300, 4))
    config = attention_config(1, 0.5, 100.0, dtype="int16")
    result = attention(config, np.full((1, 2, 8), 127, np.int8), k, v)
    np.testing.assert_allclose(result, np.broadcast_to(v.mean(1) * 100, (1, 2, 4)), atol=0.51)


def test_one_key_gives_its_value() -> None:
    v = draw(0, (1, 1, 6))
    q, k = draw(1, (1, 4, 6)), draw(2, (1, 1, 6))
    result = attention(attention_config(2, 0.01, 1.0), q, k, v)
    np.testing.assert_array_equal(result, np.broadcast_to(v, (1, 4, 6)))


def test_masked_keys_vanish() -> None:
    v = np.array([[[100], [-7], [-7]]], np.int8)
    q = k = np.zeros((1, 3, 1), np.int8)
    mask = np.array([-(2**24), 0, 0], np.int32)
    assert np.all(attention(attention_config(1, 1e-3, 1.0), q, k, v, mask) == -7)


def test_sums_of_the_longest_row_fit() -> None:
    q, k = np.full((1, 1, 64), -128, np.int8), np.full((1, 512, 64), -128, np.int8)
    v = np.full((1, 512, 2), -128, np.int8)
    config = attention_config(1, 1e-4, 1.0, 127, 127, 0, "int16")
    assert np.all(attention(config, q, k, v) == -255)


def test_sums_of_more_keys_than_int32_holds_fit() -> None:
    q, k = np.zeros((1, 1, 2), np.int8), np.zeros((1, MOST_KEYS, 2), np.int8)
    v = np.full((1, MOST_KEYS, 1), -128, np.int8)
    config = attention_config(1, 1e-4, 1.0, 0, 127, 0, "int16")
    assert np.all(attention(config, q, k, v) == -255)
    codes = np.full(MOST_KEYS, 32639)
    shift = row_shift(codes.sum())
    assert ((codes + ((1 << shift) >> 1)) >> shift).sum() * 128 < 2**31
    assert codes.sum() < 2**31 and 32639 + ((1 << shift) >> 1) <= 32767


@given(seeds, st.integers(513, 20000))
def test_short_sums_are_not_shifted_and_long_ones_keep_22_bits(seed: int, keys: int) -> None:
    total = np.random.default_rng(seed).integers(32639, 32639 * keys, 50)
    shift = row_shift(total)
    assert np.all((total >> shift) < 2**23)
    assert np.all((shift == 0) | ((total >> shift) >= 2**22))


def test_one_peak_among_many_keys_is_not_lost_nor_are_they() -> None:
    """Mean weight of the others 2^-14 of the peak's: 8-bit weights would round them to nothing."""
    k = np.zeros((1, 12544, 1), np.int8)
    k[0, 77] = 97
    v = np.where(np.arange(12544) == 77, 0, 100).astype(np.int8)[None, :, None]
    config = attention_config(1, 0.1, 100.0, dtype="int16")
    others = 12543 * np.exp(-9.7)
    expected = 100 * others / (1 + others) * 100
    result = attention(config, np.ones((1, 1, 1), np.int8), k, v)
    assert abs(result.item() - expected) < 0.05 * expected


def test_the_width_of_v_may_differ() -> None:
    config = attention_config(4, 0.01, 1.0)
    specs = [TensorSpec(shape, "int8") for shape in ((2, 5, 32), (2, 9, 32), (2, 9, 128))]
    assert infer(config, specs) == TensorSpec((2, 5, 128), "int8")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 5, 30), (1, 9, 32), (1, 9, 32)), "of q"),
        (((1, 5, 30), (1, 9, 30), (1, 9, 32)), "4 heads"),
        (((1, 5, 32), (1, 65536, 32), (1, 65536, 32)), "65536 keys"),
        (((1, 5, 32), (1, 9, 32), (1, 9, 32), (3, 1, 9)), "bias"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    shapes: tuple[tuple[int, ...], ...], message: str
) -> None:
    specs = [TensorSpec(shape, "int8") for shape in shapes]
    with pytest.raises(LoweringError, match=message):
        infer(attention_config(4, 0.01, 1.0), specs)


@pytest.mark.parametrize(("scale", "ratio"), [(-1.0, 1.0), (16.0, 1.0), (0.1, 2.0**-20)])
def test_scales_out_of_range_are_refused(scale: float, ratio: float) -> None:
    with pytest.raises(LoweringError, match="attention"):
        attention_config(1, scale, ratio)
