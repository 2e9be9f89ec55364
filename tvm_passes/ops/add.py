"""Sums: ``add`` and ``scaled_add``.

A sum brings both operands to one fixed-point format and rounds once::

    y = rounding_shift(((a - za) << la) * ma + ((b - zb) << lb) * mb, s) + zo

with int16 factors: two widening multiplications on NEON, one ``vpmaddwd`` on x86. The pre-shifts
make 8-bit codes fill their int16, so that a coarse operand has no large factor, and s is as large
as the factors and the int32 sum allow. Rounding the factors moves y by at most ``2^(15 - s)``
steps. Operands broadcast like NumPy's.
"""

from dataclasses import dataclass
from math import floor
from math import log2 as real_log2
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import rounding_shift, saturate
from tvm_passes.ops.base import Operator, register
from tvm_passes.ops.elementwise import broadcast, reach

Array = NDArray[Any]

GREATEST_FACTOR = 2**15 - 1
GREATEST_SHIFT = 30
SUM_LIMIT = 2.0**31 - 2.0**16  # what rounding the factors adds to a sum is less than 2^16


@dataclass(frozen=True)
class ScaledAddConfig:
    """``a * ra + b * rb`` with factors per channel, given as int16 tensors.

    Attributes:
        zero_a: zero point of a.
        left_a: pre-shift of a.
        zero_b: zero point of b.
        left_b: pre-shift of b.
        shift: fraction bits of the factors.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8, uint8 or int16.
    """

    zero_a: int
    left_a: int
    zero_b: int
    left_b: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


@dataclass(frozen=True)
class AddConfig(ScaledAddConfig):
    """``a * ra + b * rb`` with scalar factors.

    Attributes:
        multiplier_a: int16 factor of a, of any sign.
        multiplier_b: int16 factor of b, of any sign.
    """

    multiplier_a: int
    multiplier_b: int


def add_config(
    scale_a: float,
    zero_a: int,
    scale_b: float,
    zero_b: int,
    out_scale: float,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
    dtype_a: str,
    dtype_b: str,
) -> AddConfig:
    """Sum of two tensors with scalar scales.

    Args:
        scale_a: real value of one step of a (with a constant factor included, of any sign).
        zero_a: zero point of a, 0 for int16 codes.
        scale_b: as ``scale_a``.
        zero_b: zero point of b, 0 for int16 codes.
        out_scale: real value of one step of the output.
        out_zero_point: its zero point, 0 for int16 codes.
        qmin: least output code.
        qmax: greatest output code.
        dtype: dtype of the output.
        dtype_a: int8, uint8 or int16.
        dtype_b: int8, uint8 or int16.

    Raises:
        LoweringError: a scale or a zero point is out of range.
    """
    config, multiplier_a, multiplier_b = scaled_add_config(
        scale_a,
        zero_a,
        scale_b,
        zero_b,
        out_scale,
        out_zero_point,
        qmin,
        qmax,
        dtype,
        dtype_a,
        dtype_b,
    )
    return AddConfig(
        **vars(config), multiplier_a=int(multiplier_a[0]), multiplier_b=int(multiplier_b[0])
    )


def scaled_add_config(
    scale_a: ArrayLike,
    zero_a: int,
    scale_b: ArrayLike,
    zero_b: int,
    out_scale: float,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
    dtype_a: str,
    dtype_b: str,
) -> tuple[ScaledAddConfig, NDArray[np.int16], NDArray[np.int16]]:
    """Sum of two tensors with scales per channel.

    Args as ``add_config``; ``scale_a`` and ``scale_b`` are scalars or 1-D along the last axis.

    Returns:
        The configuration and the factors of a and b, arguments 2 and 3 of ``scaled_add``:
        int16 [C], or [1] for a scalar.

    Raises:
        LoweringError: a scale or a zero point is out of range.
    """
    for code, zero in ((dtype_a, zero_a), (dtype_b, zero_b), (dtype, out_zero_point)):
        if code == "int16" and zero or code == "int32":
            raise LoweringError(f"a sum with {code} codes around {zero}: 8 bits or int16 around 0")
    left_a, left_b = _room(dtype_a, zero_a), _room(dtype_b, zero_b)
    real_a = np.atleast_1d(np.asarray(scale_a, np.float64)) / out_scale * 2.0**-left_a
    real_b = np.atleast_1d(np.asarray(scale_b, np.float64)) / out_scale * 2.0**-left_b
    total = (np.abs(real_a) + np.abs(real_b)) * 2.0**15
    factor = max(np.abs(real_a).max(), np.abs(real_b).max(), 2.0**-64)
    room = min(GREATEST_FACTOR / factor, SUM_LIMIT / (float(total.max()) + 0.5))
    if not np.isfinite(factor) or room < 2:
        raise LoweringError(f"a sum reaches {total.max()} output steps: check its scales")
    shift = min(floor(real_log2(room)), GREATEST_SHIFT)
    config = ScaledAddConfig(
        zero_a, left_a, zero_b, left_b, shift, out_zero_point, qmin, qmax, dtype
    )
    return config, _factors(real_a, shift), _factors(real_b, shift)


def _room(dtype: str, zero_point: int) -> int:
    """The greatest pre-shift that keeps centred codes in int16."""
    return max(15 - reach(dtype, zero_point).bit_length(), 0)


def _factors(real: NDArray[np.float64], shift: int) -> NDArray[np.int16]:
    return np.floor(real * 2.0**shift + 0.5).astype(np.int16)


def _sum(config: ScaledAddConfig, a: Array, b: Array, ma: ArrayLike, mb: ArrayLike) -> Array:
    wide_a = (a.astype(np.int64) - config.zero_a) << config.left_a
    wide_b = (b.astype(np.int64) - config.zero_b) << config.left_b
    terms = wide_a * np.asarray(ma, np.int64) + wide_b * np.asarray(mb, np.int64)
    value = rounding_shift(terms, config.shift) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _add_reference(config: AddConfig, a: Array, b: Array) -> Array:
    """a and b int8, uint8 or int16 -> the broadcast shape."""
    return _sum(config, a, b, config.multiplier_a, config.multiplier_b)


def _scaled_add_reference(
    config: ScaledAddConfig, a: Array, b: Array, ma: Array, mb: Array
) -> Array:
    """As ``add``, with int16 factors [C] or [1] along the last axis."""
    return _sum(config, a, b, ma, mb)


register(Operator("add", AddConfig, broadcast, _add_reference))
register(Operator("scaled_add", ScaledAddConfig, broadcast, _scaled_add_reference))
