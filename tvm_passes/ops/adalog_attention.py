"""Attention with AdaLog codes after softmax, in one operator: ``adalog_attention``.

AdaLog (ECCV 2024), section 3.1: a probability p is stored as ``round(-log2(p / s) * r / q)``. With
the distance d of a logit from the greatest one of its row, that is affine in d, so neither a
division nor a logarithm of an element is needed. For one query, all its keys n and one head::

    d[n] = x[n] - max(x)                               as in ``attention``
    l    = log2(sum(exp2_codes(octaves of d[n])))      one logarithm per query
    c[n] = rounding_shift(L - mulhrs(d[n] .., m), f)   clamped to [0, 2^bits - 1]
    o    = rescale(sum(table[c[n]] * v[n]))

L is l in code steps with f fraction bits, and ``2^bits - 1`` is the code of zero. A code differs
from that of exact arithmetic only where that one lies within 0.1 of a step of a boundary, and then
by one. The zero point of v is 0: codes do not add up to one, so it would not cancel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2 as real_log2
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import (
    EXP2_CODE_BITS,
    EXP2_CODE_COEFFICIENTS,
    INT_RANGE,
    LOG2_BITS,
    FixedPoint,
    exp2_codes,
    log2,
    requantize,
    rescale,
    rounding_shift,
    saturate,
)
from tvm_passes.ops.attention import (
    distance_factors,
    heads_first,
    infer_attention,
    logit_distance,
    scaled_distance,
    tokens_first,
)
from tvm_passes.ops.base import Operator, TensorSpec, register
from tvm_passes.ops.elementwise import rescaling
from tvm_passes.ops.gemm import exact_matmul
from tvm_passes.ops.heads import PerHead, along_heads, per_head

Array = NDArray[Any]

ONE = real_log2(EXP2_CODE_COEFFICIENTS[0])  # of the code that stands for the greatest logit


@dataclass(frozen=True)
class AdaLogAttentionConfig:
    """Heads, the way from logits to codes, and the format of the output.

    What depends on the scales of q, k and v may differ between heads.

    Attributes:
        heads: H.
        zero_q: zero point of q.
        right: of the distance in octaves, as in ``AttentionConfig``.
        left: likewise.
        logit_multiplier: likewise.
        code_right: the same for the distance in code steps.
        code_left: likewise.
        code_multiplier: likewise.
        log_offset: added to the binary logarithm of a sum, Q24.
        log_multiplier: fixed-point multiplier from that to code steps.
        log_shift: its shift.
        fraction_bits: of code steps.
        code_max: the code that stands for zero.
        multiplier: of the output, a ``Rescale`` without a pre-shift.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8 or int16.
    """

    heads: int
    zero_q: int
    right: PerHead
    left: PerHead
    logit_multiplier: PerHead
    code_right: PerHead
    code_left: PerHead
    code_multiplier: PerHead
    log_offset: int
    log_multiplier: int
    log_shift: int
    fraction_bits: int
    code_max: int
    multiplier: PerHead
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


def adalog_attention_config(
    heads: int,
    scale: ArrayLike,
    steps: float,
    bits: int,
    ratio: ArrayLike,
    out_scale: float = 1.0,
    zero_q: int = 0,
    zero_point: int = 0,
    dtype: str = "int8",
    codes: tuple[int, int] | None = None,
) -> AdaLogAttentionConfig:
    """Configuration from real scales.

    Args:
        heads: H.
        scale: real value of one step of the logits: of q times of k, the 1 / sqrt(D) included; one
            for all heads, or [H].
        steps: codes of an octave, r / q.
        bits: width of a code, at most 8.
        ratio: real value of one step of the table times one of v, over one step of the output;
            likewise.
        out_scale: probability that code 0 stands for, at least 1.
        zero_q: zero point of q.
        zero_point: zero point of the output.
        dtype: int8 or int16, of the output.
        codes: least and greatest code of the output, the whole range when omitted.

    Raises:
        LoweringError: a parameter is out of range.
    """
    if not 1 <= bits <= 8 or not 0 < steps <= 64 or not 1.0 <= out_scale < 2.0**32:
        raise LoweringError(
            f"attention with AdaLog codes of {bits} bits, {steps} to an octave, scale {out_scale}"
        )
    ratios = np.asarray(ratio, np.float64).ravel()
    if not np.all((ratios >= 0) & (ratios < 1.0)):
        raise LoweringError(f"attention: one step of the products is {ratios} steps of the output")
    fraction_bits = min(14 - bits, 8)  # distances that saturate reach the code of zero
    fine = steps * 2.0**fraction_bits
    log = FixedPoint.from_real(fine * 2.0**-LOG2_BITS)
    qmin, qmax = codes or INT_RANGE[dtype]
    return AdaLogAttentionConfig(
        heads,
        zero_q,
        *distance_factors(scale, 2.0**EXP2_CODE_BITS),
        *distance_factors(scale, fine),
        round((real_log2(out_scale) - ONE) * 2.0**LOG2_BITS),
        int(log.multiplier),
        int(log.shift),
        fraction_bits,
        (1 << bits) - 1,
        per_head(int(rescaling(each).multiplier) for each in ratios),
        zero_point,
        qmin,
        qmax,
        dtype,
    )


def adalog_codes(config: AdaLogAttentionConfig, distance: Array) -> Array:
    """uint8 codes of distances <= 0, [B, H, M, N]."""
    factor = config.right, config.left, config.logit_multiplier
    total = exp2_codes(scaled_distance(distance, *factor)).sum(-1, keepdims=True)
    row = requantize(log2(total) + config.log_offset, config.log_multiplier, config.log_shift)
    row = saturate(row, *INT_RANGE["int16"], "int16").astype(np.int64)
    fine = scaled_distance(distance, config.code_right, config.code_left, config.code_multiplier)
    steps = saturate(row - fine, *INT_RANGE["int16"], "int16")
    return saturate(rounding_shift(steps, config.fraction_bits), 0, config.code_max, "uint8")


def _reference(
    config: AdaLogAttentionConfig,
    q: Array,
    k: Array,
    v: Array,
    table: Array,
    bias: Array | None = None,
) -> Array:
    """q [B, M, H*D], k [B, N, H*D], v [B, N, H*Dv] int8, table int16 [256] -> [B, M, H*Dv].

    The bias, int32, is broadcast to [B, H, M, N].
    """
    distance = logit_distance(config.heads, config.zero_q, q, k, bias)
    weights = table[adalog_codes(config, distance)].astype(np.int64)
    total = exact_matmul(weights, heads_first(v, config.heads))
    value = rescale(total, along_heads(config.multiplier)) + config.zero_point
    return tokens_first(saturate(value, config.qmin, config.qmax, config.dtype))


def _infer(config: AdaLogAttentionConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    if specs[3] != TensorSpec((256,), "int16"):
        raise LoweringError(f"adalog_attention with a table {specs[3]}")
    return infer_attention(config, [*specs[:3], *specs[4:]])


register(Operator("adalog_attention", AdaLogAttentionConfig, _infer, _reference))
