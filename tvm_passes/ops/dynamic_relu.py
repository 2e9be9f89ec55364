"""Dynamic ReLU, ``max(2 g x, (2 h - 1) x)`` with gates g and h in [0, 1] that are computed.

Gates are int16 codes with scale ``2^-15``, so that both slopes have scale ``2^-14``: g is the code
of ``2 g`` as it is, and ``h - 2^14`` the one of ``2 h - 1``. Products stay below 2^31::

    p = max(g * (x - zero_x), (h - 2^14) * (x - zero_x))
    y = requantize(p) + zero_point

Source: Dynamic ReLU, arXiv 2003.10027, section 3, as in Mobile-Former, arXiv 2108.05895, 3.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import requantize, saturate
from tvm_passes.ops.base import Operator, TensorSpec, register
from tvm_passes.ops.elementwise import broadcast, fixed_point, pre_shifted, reach

Array = NDArray[Any]

GATE_SCALE = 2.0**-15
HALF = 1 << 14  # of a gate
LARGEST_GATE = 2**15 - 1


@dataclass(frozen=True)
class DynamicReluConfig:
    """`max(2 g x, (2 h - 1) x)`, gates g and h per channel, computed.

    Attributes:
        zero_x: zero point of x.
        left: static pre-shift of the product, which saturates.
        multiplier: fixed-point multiplier.
        shift: its shift.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8 or int16.
    """

    zero_x: int
    left: int
    multiplier: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


def dynamic_relu_config(
    scale: float,
    zero_point: int,
    out_scale: float,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    dtype: str,
    in_dtype: str,
) -> DynamicReluConfig:
    """Configuration from real scales.

    Args:
        scale: real value of one step of x.
        zero_point: zero point of x.
        out_scale: real value of one step of the output.
        out_zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: dtype of the output.
        in_dtype: int8, uint8 or int16.

    Raises:
        LoweringError: products may overflow int32, or a scale is out of range.
    """
    if reach(in_dtype, zero_point) * LARGEST_GATE >= 2**31:
        raise LoweringError(f"dynamic_relu of {in_dtype} codes with zero point {zero_point}")
    left, multiplier, shift = fixed_point(scale * 2 * GATE_SCALE / out_scale)
    return DynamicReluConfig(zero_point, left, multiplier, shift, out_zero_point, qmin, qmax, dtype)


def _reference(config: DynamicReluConfig, x: Array, first: Array, second: Array) -> Array:
    """x int8, uint8 or int16, gates int16 in [0, 2^15) that broadcast -> the shape of x."""
    centred = x.astype(np.int64) - config.zero_x
    greater = np.maximum(first * centred, (second.astype(np.int64) - HALF) * centred)
    acc = pre_shifted(greater, config.left)
    value = requantize(acc, config.multiplier, config.shift, config.left) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _infer(config: DynamicReluConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    out = broadcast(config, specs)
    if out.shape != specs[0].shape or any(gate.dtype != "int16" for gate in specs[1:]):
        raise LoweringError(f"dynamic_relu of {specs}: two int16 gates that broadcast are needed")
    return out


register(Operator("dynamic_relu", DynamicReluConfig, _infer, _reference))
