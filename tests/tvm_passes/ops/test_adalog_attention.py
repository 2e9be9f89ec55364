"""Attention with AdaLog codes against its definition in double precision."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.tvm_passes.ops.test_attention import draw, heads_of, weights_of
from tvm_passes.errors import LoweringError
from tvm_passes.ops.adalog_attention import adalog_attention_config, adalog_codes
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.pointwise import adalog_table

attention = OPERATORS["adalog_attention"]
Float = NDArray[np.float64]

seeds = st.integers(0, 2**32 - 1)
octaves = st.sampled_from([1e-9, 1e-5, 1e-4, 7e-4, 2e-3, 0.1, 2.0])  # of a step of the logits
# numerator and denominator of the base's exponent, bits
bases = st.sampled_from(
    [(1, 37, 8), (2, 37, 8), (7, 37, 6), (19, 37, 4), (1, 1, 4), (1, 2, 4), (137, 37, 3), (1, 1, 1)]
)


def exact_steps(distance: NDArray[np.int64], octave: float, q: int, r: int) -> Float:
    """Codes before rounding and clamping."""
    exponent = -distance * octave
    total = np.sum(2.0**-exponent, -1, keepdims=True)
    steps: Float = (exponent + np.log2(total)) * r / q
    return steps


@given(seeds, octaves, bases, st.sampled_from([1, 2, 49, 197, 512]), st.sampled_from([3, 300, 9e4]))
def test_codes_differ_only_next_to_a_boundary_and_by_one(
    seed: int, octave: float, base: tuple[int, int, int], keys: int, spread: float
) -> None:
    q, r, bits = base
    x = (np.random.default_rng(seed).normal(size=(5, keys)) * spread).astype(np.int64)
    distance = x - x.max(-1, keepdims=True)
    config = adalog_attention_config(1, octave * np.log(2), r / q, bits, 1e-4)
    got = adalog_codes(config, distance).astype(int)
    steps = exact_steps(distance, octave, q, r)
    greatest = 2**bits - 1
    expected = np.clip(np.floor(steps + 0.5), 0, greatest).astype(int)
    assert np.abs(got - expected).max() <= 1
    boundary = np.abs(steps - np.floor(steps) - 0.5) < 0.1
    assert np.all((got == expected) | boundary)


def test_the_output_is_the_weighted_sum_of_v() -> None:
    heads, q_base, bits, scale = 2, 2, 8, 3e-4
    q, k, v = (draw(seed, (2, 33, heads * 16), 50) for seed in range(3))
    bias = draw(3, (heads, 1, 33), 90).astype(np.int32)
    table, unit = adalog_table(q_base, 37, bits)
    ratio = unit * 1.7
    config = adalog_attention_config(
        heads, scale, 37 / q_base, bits, ratio, zero_q=3, zero_point=11
    )
    got = attention.reference(config, q, k, v, table, bias)
    weights = weights_of(q, k, heads, scale, 3, bias)
    codes = np.floor(-np.log2(weights / weights.sum(-1, keepdims=True)) * 37 / q_base + 0.5)
    mean = np.where(codes < 255, 2.0 ** (-codes * q_base / 37), 0) @ heads_of(v, heads)
    expected = np.clip(1.7 * mean.transpose(0, 2, 1, 3).reshape(got.shape) + 11, -128, 127)
    error = np.abs(got - expected)
    assert error.mean() < 0.3
    assert error.max() < 127 * 1.7 * (2 ** (q_base / 37) - 1) + 0.6  # one code off, at the worst


def test_masked_keys_and_sums_of_the_longest_row() -> None:
    table, unit = adalog_table(1, 1, 4)
    q = k = np.zeros((1, 512, 1), np.int8)
    v = np.full((1, 512, 1), -128, np.int8)
    mask = np.where(np.arange(512) < 2, 0, -(2**24)).astype(np.int32)
    config = adalog_attention_config(1, 1e-3, 1.0, 4, unit)
    assert np.all(attention.reference(config, q, k, v, table, mask) == -128)  # twice a half
    wide = adalog_attention_config(1, 1e-3, 1.0, 4, unit, 2.0**20, dtype="int16")
    assert np.all(attention.reference(wide, q, k, v, table) == 0)  # below the last code
    everything = np.full(256, 32639, np.int16)
    one = adalog_attention_config(1, 1e-3, 1.0, 4, 1e-5, dtype="int16")
    assert np.all(attention.reference(one, q, k, v, everything) == -21390)


def test_a_table_of_another_type_is_refused() -> None:
    specs = [TensorSpec((1, 5, 32), "int8")] * 3
    with pytest.raises(LoweringError, match="table"):
        attention.infer(
            adalog_attention_config(4, 0.01, 1.0, 4, 0.1), [*specs, TensorSpec((16,), "int16")]
        )


@pytest.mark.parametrize(
    "wrong",
    [{"bits": 9}, {"steps": 0.0}, {"out_scale": 0.5}, {"ratio": 1.0}, {"scale": 16.0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"scale": 0.01, "steps": 1.0, "bits": 4, "ratio": 0.1}
    with pytest.raises(LoweringError, match="attention"):
        adalog_attention_config(1, **(right | wrong))
