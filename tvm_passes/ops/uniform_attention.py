"""Attention with uniform codes of 8 bits or less after softmax, in one operator.

With the codes ``e`` of ``attention``, for one query, all its keys n and one head::

    s    = sum(e)
    c[n] = floor(e[n] / (s * step) + 1/2)     clamped to [0, code_max]
    o    = rescale(sum(c[n] * (v[n] - zero_v)))

One division per query gives ``1 / (s * step)``. The codes are one int8 plane, where the weights of
``attention`` are two. With what an ``e`` is off by (see there), a probability is off by 1.8e-3 of
itself and by ``1.54e-5 * (1 + N * p)`` of the greatest one, and a code differs from an exact one
only where that lies so near a boundary: of 4 bits 0.03 steps at most, of 8 bits half a step.
"""

from dataclasses import dataclass
from math import frexp
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import (
    EXP2_CODE_BITS,
    INT_RANGE,
    exp2_codes,
    mulhi,
    rescale,
    rounding_shift,
    saturate,
)
from tvm_passes.ops.attention import (
    INVERSE_BITS,
    distance_factors,
    heads_first,
    infer_attention,
    logit_distance,
    scaled_distance,
    tokens_first,
)
from tvm_passes.ops.base import Operator, register
from tvm_passes.ops.elementwise import rescaling
from tvm_passes.ops.gemm import exact_matmul
from tvm_passes.ops.heads import PerHead, along_heads, per_head

Array = NDArray[Any]

FRACTION_BITS = 16  # of a code before it is rounded
LEAST_STEP = 2.0**-12
GREATEST_CODE = 255


@dataclass(frozen=True)
class UniformAttentionConfig:
    """Heads, formats of the operands, of the probabilities and of the output.

    What depends on the scales of q, k and v may differ between heads.

    Attributes:
        heads: H.
        zero_q: zero point of q.
        zero_v: zero point of v.
        right: of the distance in octaves, as in ``AttentionConfig``.
        left: likewise.
        logit_multiplier: likewise.
        code_multiplier: ``1 / step = code_multiplier / 2^(31 - code_bits)``, in [2^30, 2^31).
        code_bits: see there.
        code_max: greatest code; the least is 0.
        multiplier: of the output, a ``Rescale`` without a pre-shift.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8 or int16.
    """

    heads: int
    zero_q: int
    zero_v: int
    right: PerHead
    left: PerHead
    logit_multiplier: PerHead
    code_multiplier: int
    code_bits: int
    code_max: int
    multiplier: PerHead
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


def uniform_attention_config(
    heads: int,
    scale: ArrayLike,
    step: float,
    code_max: int,
    ratio: ArrayLike,
    zero_q: int = 0,
    zero_v: int = 0,
    zero_point: int = 0,
    dtype: str = "int8",
    codes: tuple[int, int] | None = None,
) -> UniformAttentionConfig:
    """Configuration from real scales.

    Args:
        heads: H.
        scale: real value of one step of the logits: of q times of k, the 1 / sqrt(D) included; one
            for all heads, or [H].
        step: of the probabilities, in [2^-12, 1].
        code_max: greatest code of a probability, at most 255.
        ratio: ``step`` times one step of v, over one step of the output, below 1; one or [H].
        zero_q: zero point of q.
        zero_v: zero point of v.
        zero_point: zero point of the output.
        dtype: int8 or int16, of the output.
        codes: least and greatest code of the output, the whole range when omitted.

    Raises:
        LoweringError: a parameter is out of range.
    """
    if not LEAST_STEP <= step <= 1.0 or not 1 <= code_max <= GREATEST_CODE:
        raise LoweringError(f"attention with codes up to {code_max} of steps of {step}")
    ratios = np.asarray(ratio, np.float64).ravel()
    if not np.all((ratios >= 0) & (ratios < 1.0)):
        raise LoweringError(f"attention: one step of the products is {ratios} steps of the output")
    mantissa, code_bits = frexp(1.0 / step)
    qmin, qmax = codes or INT_RANGE[dtype]
    return UniformAttentionConfig(
        heads,
        zero_q,
        zero_v,
        *distance_factors(scale, 2.0**EXP2_CODE_BITS),
        min(int(mantissa * 2.0**31 + 0.5), INT_RANGE["int32"][1]),
        code_bits,
        code_max,
        per_head(int(rescaling(each).multiplier) for each in ratios),
        zero_point,
        qmin,
        qmax,
        dtype,
    )


def fine_shift(config: UniformAttentionConfig) -> int:
    """Left shift of the codes ``e`` before they are multiplied by the inverse of their sum."""
    return config.code_bits + FRACTION_BITS - INVERSE_BITS


def uniform_codes(config: UniformAttentionConfig, distance: Array) -> Array:
    """uint8 codes of distances <= 0, [B, H, M, N]."""
    factor = config.right, config.left, config.logit_multiplier
    weights = exp2_codes(scaled_distance(distance, *factor))
    total = weights.sum(-1, keepdims=True)
    inverse = (np.int64(config.code_multiplier) << INVERSE_BITS) // total
    fine = mulhi(weights << fine_shift(config), inverse)
    return saturate(rounding_shift(fine, FRACTION_BITS), 0, config.code_max, "uint8")


def _reference(
    config: UniformAttentionConfig, q: Array, k: Array, v: Array, bias: Array | None = None
) -> Array:
    """q [B, M, H*D], k [B, N, H*D], v [B, N, H*Dv] int8, bias int32 -> [B, M, H*Dv].

    The bias is broadcast to [B, H, M, N].
    """
    distance = logit_distance(config.heads, config.zero_q, q, k, bias)
    codes = uniform_codes(config, distance).astype(np.int64)
    total = exact_matmul(codes, heads_first(v, config.heads) - config.zero_v)
    value = rescale(total, along_heads(config.multiplier)) + config.zero_point
    return tokens_first(saturate(value, config.qmin, config.qmax, config.dtype))


register(Operator("uniform_attention", UniformAttentionConfig, infer_attention, _reference))
