"""Twin uniform codes (PTQ4ViT): values of two ranges on the grid of the finer one, ``twin``.

PTQ4ViT (ECCV 2022), section 3.2. A code of b bits has one bit for its range and ``h = 2^(b-1)``
codes in either; the coarse step is ``2^m`` fine ones. On the fine grid a value is an integer::

    unsigned    y = min(round(x / s), h - 1)                       where round(x / s) < h
                y = min(round(x / (s 2^m)), h - 1) * 2^m           above
    signed      y = max(round(x / s), 1 - h)                       where x < 0
                y = min(round(x / (s 2^m)), h - 1) * 2^m           above

so that a product reads it as any int16 operand. Either quotient is a ``rescale_words``, within a
hundredth of a step of the exact one before it is rounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import frexp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import INT_RANGE, rescale_words
from tvm_passes.ops.base import Operator, TensorSpec, register, same_as

Array = NDArray[Any]


@dataclass(frozen=True)
class TwinConfig:
    """The two ranges of ``twin`` and the way to them from int16 codes.

    Attributes:
        fine_left: pre-shift to the fine range.
        fine_multiplier: multiplier to it.
        fine_shift: fraction bits of it.
        coarse_left: as ``fine_left``, of the coarse range.
        coarse_multiplier: likewise.
        coarse_shift: likewise.
        codes: h, how many codes a range has.
        ratio_bits: m, the coarse step is ``2^m`` fine ones.
        qmin: least value, ``1 - h`` of signed codes and else 0.
        qmax: greatest value, ``(h - 1) * 2^m``.
        dtype: always int16.
    """

    fine_left: int
    fine_multiplier: int
    fine_shift: int
    coarse_left: int
    coarse_multiplier: int
    coarse_shift: int
    codes: int
    ratio_bits: int
    qmin: int
    qmax: int
    dtype: str = "int16"


def twin_range(m: int, bits: int, signed: bool) -> tuple[int, int]:
    """Least and greatest value of twin codes on the fine grid.

    Args:
        m: the coarse step is ``2^m`` fine ones.
        bits: width of a code, 2 to 8.
        signed: whether the fine range is that of negative values.

    Raises:
        LoweringError: there are no such codes, or their values exceed int16.
    """
    top = (1 << (bits - 1)) - 1 if 2 <= bits <= 8 else 0
    if not top or m < 0 or top << m > INT_RANGE["int16"][1]:
        raise LoweringError(
            f"twin codes of {bits} bits whose steps differ by 2^{m}: 2 to 8 bits are possible, and "
            "values up to 2^15 fine steps"
        )
    return (-top if signed else 0), top << m


def twin_config(scale: float, out_scale: float, m: int, bits: int, signed: bool) -> TwinConfig:
    """Configuration for int16 codes with ``scale``.

    Args:
        scale: real value of one step of x.
        out_scale: the fine step.
        m: the coarse step is ``2^m`` fine ones.
        bits: width of a code, 2 to 8.
        signed: whether the fine range is that of negative values.

    Raises:
        LoweringError: there are no such codes.
    """
    qmin, qmax = twin_range(m, bits, signed)
    fine = _factor(scale / out_scale, bits)
    coarse = _factor(scale / out_scale * 2.0**-m, bits)
    return TwinConfig(*fine, *coarse, 1 << (bits - 1), m, qmin, qmax)


def _factor(real: float, bits: int) -> tuple[int, int, int]:
    """Pre-shift, multiplier and shift that keep apart what is below ``2^(bits-1)`` steps.

    Where ``x << left`` saturates, the product is ``2^(bits-1)`` at least, as it ought to be.
    """
    shift = 15 - bits
    mantissa, exponent = frexp(real * 2.0**shift)
    left = max(exponent, 0)
    multiplier = round(mantissa * 2.0 ** (15 + exponent - left))
    if multiplier == 1 << 15:
        left, multiplier = left + 1, 1 << 14
    return min(left, 15), multiplier, shift


def _reference(config: TwinConfig, x: Array) -> Array:
    """x int16 -> int16 of the same shape."""
    top = config.codes - 1
    fine = rescale_words(x, config.fine_multiplier, config.fine_left, config.fine_shift)
    coarse = rescale_words(x, config.coarse_multiplier, config.coarse_left, config.coarse_shift)
    coarse = np.minimum(coarse, top) << config.ratio_bits
    near = x < 0 if config.qmin else fine < config.codes
    return np.where(near, np.maximum(fine, config.qmin), coarse).astype(np.int16)


def _infer(config: TwinConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    if specs[0].dtype != "int16":
        raise LoweringError(f"twin of {specs[0].dtype} codes: int16 is needed")
    return same_as()(config, specs)


register(Operator("twin", TwinConfig, _infer, _reference))
