"""AdaLog codes of an int16 activation (post-GELU): ``adalog_quantize``.

AdaLog (ECCV 2024), sections 3.1 and 3.3: ``code = round(-log2((x + shift) / scale) * r / q)``.
With x in codes this is ``requantize(row_constant - log2(x * 2^g + shift_codes))``: the scale of x
only moves the constant, so nothing is rounded before the logarithm but the shift.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2 as real_log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import LOG2_WORD_BITS, FixedPoint, log2_words, requantize, saturate
from tvm_passes.ops.base import Operator, TensorSpec, register, same_as
from tvm_passes.ops.pointwise import codes_per_octave

Array = NDArray[Any]


@dataclass(frozen=True)
class AdaLogQuantizeConfig:
    """Scale, shift and base of ``adalog_quantize``.

    Attributes:
        left: x is shifted left by this before the shift is added.
        offset: the shift, in steps of ``x << left``, the zero point of x included.
        constant: binary logarithm of the scale in the same steps, Q15.
        multiplier: fixed-point multiplier from Q15 octaves to codes.
        shift: its shift.
        qmax: the code that stands for zero, ``2^bits - 1``.
        dtype: uint8.
    """

    left: int
    offset: int
    constant: int
    multiplier: int
    shift: int
    qmax: int
    dtype: str = "uint8"


def adalog_quantize_config(
    scale: float,
    zero_point: int,
    out_scale: float,
    q: int,
    r: int,
    bits: int,
    shift: float = 0.0,
) -> AdaLogQuantizeConfig:
    """Configuration for an int8 or int16 input.

    Args:
        scale: real value of one step of x.
        zero_point: its zero point.
        out_scale: real value of code 0.
        q: numerator of the base's exponent, base = 2^(q/r).
        r: its denominator.
        bits: width of a code, at most 8.
        shift: added to the real value of x before the logarithm.

    Raises:
        LoweringError: a parameter is out of range.
    """
    octave = codes_per_octave(q, r, bits)
    steps = shift / scale - zero_point  # x + steps stands for the argument of the logarithm
    left = 30 - (32768 + abs(int(steps)) + 1).bit_length()
    ratio = real_log2(out_scale / scale)
    if left < 0 or abs(ratio + left) > 60:
        raise LoweringError(
            f"AdaLog: shift {shift} or scale {out_scale} is too far from the input scale {scale}"
        )
    code = FixedPoint.from_real(octave * 2.0**-LOG2_WORD_BITS)
    return AdaLogQuantizeConfig(
        left,
        round(steps * 2.0**left),
        round((ratio + left) * 2.0**LOG2_WORD_BITS),
        int(code.multiplier),
        int(code.shift),
        (1 << bits) - 1,
    )


def _reference(config: AdaLogQuantizeConfig, x: Array) -> Array:
    """x int8 or int16 -> uint8 codes of the same shape."""
    value = (x.astype(np.int64) << config.left) + config.offset
    octaves = config.constant - log2_words(np.maximum(value, 1))
    codes = requantize(octaves, config.multiplier, config.shift)
    codes = np.where(value <= 0, config.qmax, codes)
    return saturate(codes, 0, config.qmax, config.dtype)


def _infer(config: AdaLogQuantizeConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    if specs[0].dtype not in ("int8", "int16"):
        raise LoweringError(f"adalog_quantize of {specs[0].dtype} codes: int8 or int16 is needed")
    return same_as()(config, specs)


register(Operator("adalog_quantize", AdaLogQuantizeConfig, _infer, _reference))
