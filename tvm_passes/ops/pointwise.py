"""Pointwise functions by a table with an entry per code: ``lut``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import erf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import Operator, TensorSpec, register, same_as

Array = NDArray[Any]
Float = NDArray[np.float64]

WEIGHT_MAX = 32639  # 127 * 256 + 127: the greatest value that splits into two int8 planes


def _sigmoid(x: Float) -> Float:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def _hardsigmoid(x: Float) -> Float:
    return np.clip(x + 3.0, 0.0, 6.0) / 6.0


_erf = np.vectorize(erf, otypes=[np.float64])

FUNCTIONS: dict[str, Callable[[Float], Float]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: 0.5 * x * (1.0 + _erf(x / np.sqrt(2.0))),
    "hardswish": lambda x: x * _hardsigmoid(x),
    "hardsigmoid": _hardsigmoid,
    "sigmoid": _sigmoid,
    "identity": lambda x: x,
}


@dataclass(frozen=True)
class LutConfig:
    """Output of ``lut``.

    Attributes:
        dtype: dtype of the table and of the output.
    """

    dtype: str


def lut_table(
    function: str,
    scale: float,
    zero_point: int,
    out_scale: float,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
    in_dtype: str = "int8",
) -> Array:
    """Table of a pointwise function, exact to half a step: [256] of ``dtype``.

    Args:
        function: a key of ``FUNCTIONS``.
        scale: real value of one step of the input.
        zero_point: its zero point.
        out_scale: real value of one step of the output.
        out_zero_point: its zero point.
        qmin: least output code.
        qmax: greatest output code.
        dtype: dtype of the output.
        in_dtype: int8 or uint8.
    """
    first = -128 if in_dtype == "int8" else 0
    x = (np.arange(first, first + 256, dtype=np.float64) - zero_point) * scale
    codes = np.floor(FUNCTIONS[function](x) / out_scale + 0.5) + out_zero_point
    table: Array = np.clip(codes, qmin, qmax).astype(dtype)
    return table


def codes_per_octave(q: int, r: int, bits: int) -> float:
    """How many logarithmic codes of base 2^(q/r) halve a value: r / q.

    Raises:
        LoweringError: there are none of 1 to 8 bits, or an octave has more than 64 codes or less
            than a 64th of one.
    """
    if q < 1 or r < 1 or not 1 <= bits <= 8 or not 1 / 64 <= r / q <= 64:
        raise LoweringError(
            f"logarithmic codes with base 2^({q}/{r}) and {bits} bits: 1/64 to 64 octaves to a "
            "code and 1 to 8 bits are possible"
        )
    return r / q


def adalog_table(
    q: int, r: int, bits: int, greatest: int = WEIGHT_MAX
) -> tuple[NDArray[np.int16], float]:
    """Fixed-point values of AdaLog codes, and the real value of one step at scale 1.

    The table has 256 entries for ``lut`` on uint8 codes: ``greatest * 2^(-code * q / r)``, and 0
    for the zero code ``2^bits - 1`` and above. Every value splits into two int8 planes.

    Raises:
        LoweringError: there are no such codes.
    """
    codes = np.arange(256)
    values = np.floor(greatest * 2.0 ** (-codes / codes_per_octave(q, r, bits)) + 0.5)
    return np.where(codes < (1 << bits) - 1, values, 0).astype(np.int16), 1.0 / greatest


def _reference(config: LutConfig, x: Array, table: Array) -> Array:
    """x int8, uint8 or int16, table [256] or [65536] -> the shape of x."""
    index = x.astype(np.int64) - INT_RANGE[str(x.dtype)][0]
    result: Array = table[index]
    return result


def _infer(config: LutConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    entries = {"int8": 256, "uint8": 256, "int16": 65536}.get(specs[0].dtype, 0)
    if not entries or specs[1] != TensorSpec((entries,), config.dtype):
        raise LoweringError(f"lut of {specs[0].dtype} codes with a table {specs[1]}")
    return same_as()(config, specs)


register(Operator("lut", LutConfig, _infer, _reference))
