"""Attention in one operator: ``softmax(q k^T + bias) v`` with deferred normalisation.

In integers, for one query, all its keys n and one head::

    x[n] = sum(q * k[n]) - zero_q * sum(k[n]) + bias[n]
    d[n] = x[n] - max(x)                                     int32, <= 0
    t[n] = mulhrs(saturate16(d[n] / 2^right * 2^left), m)    octaves, Q10, rounded
    e[n] = 32639 * 2^t[n]                                    ``exp2_codes``, 0 from 16 octaves on
    e[n] = rounding_shift(e[n], r)                           only if N > 512, see below
    s    = sum(e),  a = sum(e * v[n])                        int32
    o    = requantize(a / s - zero_v)                        one division per query

Of more than 512 keys the sum a could leave int32. There r is the least shift, a power of two for
every query, that brings s below 2^23 before rounding: a row of equal weights keeps at least 2^22
shares among its codes, a row with one peak is not shifted at all. Then s is at most 2^23 + N / 2
and a at most 128 s, below 2^31 for 65535 keys, as is the sum of the codes before the shift.

What zero_k contributes is the same for all keys of a query and cancels. The codes ``e`` that weigh
v are the ones that are summed, so that their scale cancels too, and they split into two int8
planes.

Error, against real arithmetic on the same codes of q, k and v: a weight has a relative error of at
most 9e-4, made of the two roundings of t (half of 2^-10 octaves each, 6.8e-4 together), the rounded
``m`` (2^-15 of the distance) and the polynomial (1.4e-4); and an absolute one of half a code,
1.54e-5 of the greatest weight. The mean of v moves by at most::

    span * (9e-4 + 1.54e-5 * N / S),    span = max(v) - min(v),  S = sum of the weights >= 1

steps of v: 1.2 for 256 keys and all 255 codes if every rounding conspires, and typically less than
0.01 in the root mean square. The shift of a long row adds half a shifted code to every weight: at
most ``span * N / 2^23``, which is 0.4 for 12544 keys and all 255 codes if all roundings conspire.
Requantizing adds half a step of the output.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import frexp, ldexp, log
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import (
    EXP2_CODE_BITS,
    INT_RANGE,
    FixedPoint,
    Int64,
    bit_length,
    exp2_codes,
    mulhi,
    mulhrs,
    rounding_shift,
    saturate,
)
from tvm_passes.ops.base import Operator, TensorSpec, register
from tvm_passes.ops.gemm import exact_matmul
from tvm_passes.ops.heads import PerHead, along_heads, per_head

Array = NDArray[Any]

SHORT_ROW = 512  # keys whose codes times v fit int32: 512 * 32639 * 128 < 2^31
MOST_KEYS = 65535  # whose codes fit int32
SUM_BITS = 23  # of the codes of a long row
MOST_WIDTH = 1 << 13  # so that logits stay within 2^28, plus a bias
GREATEST_BIAS = 1 << 29
MOST_LEFT = 15  # saturates whatever is not 0
MOST_RIGHT = 16  # brings every int32 distance to int16
INVERSE_BITS = 14  # of the division: the least sum is 32639


@dataclass(frozen=True)
class AttentionConfig:
    """Heads, formats of the operands and of the output.

    What depends on the scales of q, k and v may differ between heads.

    Attributes:
        heads: H.
        zero_q: zero point of q.
        zero_v: zero point of v.
        right: rounding shift of the distance, 0 for none.
        left: saturating pre-shift instead, for coarse logits.
        logit_multiplier: ``m``, in [0, 2^15).
        multiplier: of the output, in [2^30, 2^31), in units of ``2^-(31 + shift - 14)``.
        shift: of the output, 1 to 31.
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
    multiplier: PerHead
    shift: PerHead
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


def attention_config(
    heads: int,
    scale: ArrayLike,
    ratio: ArrayLike,
    zero_q: int = 0,
    zero_v: int = 0,
    zero_point: int = 0,
    dtype: str = "int8",
    codes: tuple[int, int] | None = None,
) -> AttentionConfig:
    """Configuration from real scales.

    Args:
        heads: H.
        scale: real value of one step of the logits: of q times of k, the 1 / sqrt(D) included; one
            for all heads, or [H].
        ratio: scale of v over scale of the output, above 2^-16 and below 2^12; likewise.
        zero_q: zero point of q.
        zero_v: zero point of v.
        zero_point: zero point of the output.
        dtype: int8 or int16, of the output.
        codes: least and greatest code of the output, the whole range when omitted.

    Raises:
        LoweringError: a scale is out of range.
    """
    ratios = np.asarray(ratio, np.float64).ravel()
    if not np.all((2.0**-16 < ratios) & (ratios < 2.0**12)):
        raise LoweringError(f"attention: one step of v is {ratios} steps of the output")
    outputs = [FixedPoint.from_real(each) for each in ratios]
    qmin, qmax = codes or INT_RANGE[dtype]
    return AttentionConfig(
        heads,
        zero_q,
        zero_v,
        *distance_factors(scale, 2.0**EXP2_CODE_BITS),
        per_head(int(output.multiplier) for output in outputs),
        per_head(INVERSE_BITS + int(output.shift) - output.left for output in outputs),
        zero_point,
        qmin,
        qmax,
        dtype,
    )


def distance_factors(scale: ArrayLike, steps: float) -> tuple[PerHead, PerHead, PerHead]:
    """``distance_factor`` of every head, or of all: ``scale`` is a scalar, or [H]."""
    scales = np.asarray(scale, np.float64).ravel()
    right, left, m = zip(*(distance_factor(float(each), steps) for each in scales), strict=True)
    return per_head(right), per_head(left), per_head(m)


def distance_factor(scale: float, steps: float) -> tuple[int, int, int]:
    """``right``, ``left`` and ``m``: from distances of logits to steps of octaves.

    Args:
        scale: real value of one step of the logits.
        steps: of an octave.

    Raises:
        LoweringError: the scale is out of range.
    """
    if not 0 <= scale < 2.0**4:
        raise LoweringError(f"attention: logits with scale {scale}: at least 0, below 16")
    mantissa, exponent = frexp(scale / log(2.0) * steps)
    if mantissa >= 1 - 2.0**-16:  # would round to 2^15
        mantissa, exponent = 0.5, exponent + 1
    right = min(max(-exponent, 0), MOST_RIGHT)
    left = max(exponent, 0)
    m = round(ldexp(mantissa, 15 + exponent + right - left))
    return right, min(left, MOST_LEFT), m


def row_shift(total: Array) -> Int64:
    """The shift r of rows of more than ``SHORT_ROW`` keys, from the sums of their codes."""
    shift: Int64 = np.maximum(bit_length(total) - SUM_BITS, 0)
    return shift


def shortened(weights: Int64) -> Int64:
    """Codes of a row of more than ``SHORT_ROW`` keys, shifted so that their sums fit."""
    shift = row_shift(weights.sum(-1, keepdims=True))
    return (weights + ((np.int64(1) << shift) >> 1)) >> shift


def scaled_distance(distance: Array, right: PerHead, left: PerHead, m: PerHead) -> Array:
    """Distances <= 0, [B, H, M, N], in the steps that ``distance_factor`` was asked for, int16."""
    shift = along_heads(right)
    distance = np.where(shift, rounding_shift(distance, np.maximum(shift, 1)), distance)
    steps = saturate(distance, *INT_RANGE["int16"], "int16").astype(np.int64) << along_heads(left)
    return mulhrs(np.maximum(steps, INT_RANGE["int16"][0]), along_heads(m))


def heads_first(x: Array, heads: int) -> Array:
    """[B, N, H * D] -> [B, H, N, D] in int64."""
    batch, tokens, width = x.shape
    split = x.astype(np.int64).reshape(batch, tokens, heads, width // heads)
    return split.transpose(0, 2, 1, 3)


def tokens_first(x: Array) -> Array:
    """[B, H, N, D] -> [B, N, H * D]."""
    batch, heads, tokens, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * width)


def logit_distance(heads: int, zero_q: int, q: Array, k: Array, bias: Array | None) -> Array:
    """Logits minus the greatest one of their row, int64 [B, H, M, N]."""
    queries, keys = heads_first(q, heads), heads_first(k, heads)
    x = exact_matmul(queries - zero_q, keys.swapaxes(-1, -2))
    if bias is not None:
        x = x + bias
    distance: Array = x - x.max(-1, keepdims=True)
    return distance


def _reference(
    config: AttentionConfig, q: Array, k: Array, v: Array, bias: Array | None = None
) -> Array:
    """q [B, M, H*D], k [B, N, H*D], v [B, N, H*Dv] int8, bias int32 -> [B, M, H*Dv].

    The bias is broadcast to [B, H, M, N].
    """
    distance = logit_distance(config.heads, config.zero_q, q, k, bias)
    factor = config.right, config.left, config.logit_multiplier
    weights = exp2_codes(scaled_distance(distance, *factor))
    if weights.shape[-1] > SHORT_ROW:
        weights = shortened(weights)
    values = heads_first(v, config.heads)
    total = weights.sum(-1, keepdims=True)
    inverse = (along_heads(config.multiplier) << INVERSE_BITS) // total
    mean = mulhi(exact_matmul(weights, values), inverse) + mulhi(-config.zero_v * total, inverse)
    codes = rounding_shift(mean, along_heads(config.shift)) + config.zero_point
    codes = saturate(codes, config.qmin, config.qmax, config.dtype)
    return tokens_first(codes)


def infer_attention(
    config: Any, specs: Sequence[TensorSpec], most_keys: int = SHORT_ROW
) -> TensorSpec:
    """Type of attention over q, k, v and perhaps a bias.

    Args:
        config: of one of the operators, with ``heads`` and ``dtype``.
        specs: q, k, v and perhaps a bias.
        most_keys: N at most.

    Raises:
        LoweringError: the shapes or types do not fit, or sums may overflow.
    """
    q, k, v, *bias = specs
    heads = config.heads
    batch, tokens, width = q.shape
    keys = k.shape[1]
    if k.shape != (batch, keys, width) or v.shape[:2] != (batch, keys):
        raise LoweringError(f"attention of q {q.shape}, k {k.shape} and v {v.shape}")
    if any(spec.dtype != "int8" for spec in (q, k, v)) or width % heads or v.shape[2] % heads:
        raise LoweringError(f"attention of {specs} with {heads} heads: int8 codes are needed")
    if any(len(each) != heads for each in vars(config).values() if isinstance(each, tuple)):
        raise LoweringError(f"attention of {heads} heads with scales of another number of heads")
    if keys > most_keys or width // heads > MOST_WIDTH:
        raise LoweringError(f"attention over {keys} keys of {width // heads} codes may overflow")
    logits = (batch, heads, tokens, keys)
    shape = ((1,) * 4 + bias[0].shape)[-4:] if bias else logits
    if any(extent not in (1, full) for extent, full in zip(shape, logits, strict=True)):
        raise LoweringError(f"attention: a bias of shape {bias[0].shape} does not fit {logits}")
    return TensorSpec((batch, tokens, v.shape[2]), config.dtype)


def _infer(config: AttentionConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    return infer_attention(config, specs, MOST_KEYS)


register(Operator("attention", AttentionConfig, _infer, _reference))
