"""Attention with uniform codes after softmax against its definition in double precision."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tvm_passes.ops.test_attention import draw, heads_of, weights_of
from tvm_passes.errors import LoweringError
from tvm_passes.ops.base import OPERATORS
from tvm_passes.ops.uniform_attention import uniform_attention_config, uniform_codes

attention = OPERATORS["uniform_attention"].reference

seeds = st.integers(0, 2**32 - 1)
octaves = st.sampled_from([1e-9, 1e-5, 1e-4, 7e-4, 2e-3, 0.1, 2.0])  # of a step of the logits
lengths = st.sampled_from([1, 2, 49, 197, 512])
formats = st.one_of(
    st.sampled_from([(2.0**-8, 255), (1 / 15, 15), (1.0, 1), (2.0**-12, 255)]),
    st.tuples(st.floats(1 / 3000, 1.0), st.integers(1, 255)),
)


@given(seeds, octaves, formats, lengths, st.sampled_from([3, 300, 9e4]))
def test_codes_differ_only_next_to_a_boundary_and_by_one(
    seed: int, octave: float, form: tuple[float, int], keys: int, spread: float
) -> None:
    step, code_max = form
    x = (np.random.default_rng(seed).normal(size=(5, keys)) * spread).astype(np.int64)
    distance = x - x.max(-1, keepdims=True)
    config = uniform_attention_config(1, octave * np.log(2), step, code_max, 1e-4)
    got = uniform_codes(config, distance).astype(int)
    weights = 2.0 ** (distance * octave)
    p = weights / weights.sum(-1, keepdims=True)
    steps = p / step
    expected = np.clip(np.floor(steps + 0.5), 0, code_max)
    off = 1.8e-3 * steps + 1.54e-5 * steps.max(-1, keepdims=True) * (1 + keys * p) + 1e-4
    boundary = np.abs(steps - np.floor(steps) - 0.5) < off
    assert np.all((got == expected) | boundary)
    assert np.all(np.abs(got - expected) <= np.ceil(off))


def test_the_output_is_the_sum_of_v_by_codes() -> None:
    heads, scale, step = 2, 3e-4, 1 / 15
    q, k, v = (draw(seed, (2, 33, heads * 16), 50) for seed in range(3))
    bias = draw(3, (heads, 1, 33), 90).astype(np.int32)
    ratio = 1.7 * step
    got = attention(
        uniform_attention_config(heads, scale, step, 15, ratio, 3, -9, 11), q, k, v, bias
    )
    weights = weights_of(q, k, heads, scale, 3, bias)
    steps = weights / weights.sum(-1, keepdims=True) / step
    total = ratio * np.clip(np.floor(steps + 0.5), 0, 15) @ (heads_of(v, heads) + 9)
    expected = np.clip(total.transpose(0, 2, 1, 3).reshape(got.shape) + 11, -128, 127)
    error = np.abs(got - expected)
    assert error.mean() < 0.3 and np.mean(error > 0.51) < 0.05


def test_masked_keys_and_sums_of_the_longest_row() -> None:
    q = k = np.zeros((1, 512, 1), np.int8)
    v = np.full((1, 512, 1), -128, np.int8)
    mask = np.where(np.arange(512) < 2, 0, -(2**24)).astype(np.int32)
    half = uniform_attention_config(1, 1e-3, 1 / 4, 3, 0.25)
    assert np.all(attention(half, q, k, v, mask) == -128)
    # no code of a row of 512 is more than half a step of a quarter
    assert np.all(attention(half, q, k, v) == 0)
    most = uniform_attention_config(1, 1e-3, 2.0**-12, 8, 2.0**-12, zero_v=127, dtype="int16")
    assert np.all(attention(most, q, k, v) == -255)  # 512 times 8 times 255


@pytest.mark.parametrize(
    "wrong",
    [{"step": 2.0**-13}, {"step": 1.1}, {"code_max": 256}, {"ratio": 1.0}, {"scale": 16.0}],
    ids=str,
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"scale": 0.01, "step": 0.1, "code_max": 15, "ratio": 0.1}
    with pytest.raises(LoweringError, match="attention"):
        uniform_attention_config(1, **(right | wrong))
