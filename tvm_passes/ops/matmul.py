"""Product of two computed tensors: the attention products."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import rescale, saturate
from tvm_passes.ops.base import Operator, TensorSpec, register
from tvm_passes.ops.gemm import exact_matmul
from tvm_passes.ops.heads import PerHead, along_heads

Array = NDArray[Any]


@dataclass(frozen=True)
class MatmulConfig:
    """``(a - zero_a) @ (b - zero_b)``, batched over the leading dimensions.

    Attributes:
        transpose_b: b is [..., N, K] instead of [..., K, N].
        zero_a: zero point of a.
        zero_b: zero point of b.
        raw: return the int32 accumulators; the fields below are then unused.
        left: static pre-shift.
        multiplier: multiplier of the output, a ``Rescale``; one for all matrices, or one for each
            head, which the last leading dimension is.
        zero_point: zero point of the output.
        qmin: least output code.
        qmax: greatest output code.
        dtype: int8, int16 or int32 (raw).
    """

    transpose_b: bool
    zero_a: int
    zero_b: int
    raw: bool
    left: int
    multiplier: PerHead
    zero_point: int
    qmin: int
    qmax: int
    dtype: str


def _reference(config: MatmulConfig, a: Array, b: Array) -> Array:
    """a [..., M, K] int8 or int16, b int8 -> [..., M, N]."""
    right = b.astype(np.int64) - config.zero_b
    acc = exact_matmul(
        a.astype(np.int64) - config.zero_a, right.swapaxes(-1, -2) if config.transpose_b else right
    )
    if config.raw:
        return acc.astype(np.int32)
    value = rescale(acc, along_heads(config.multiplier), config.left) + config.zero_point
    return saturate(value, config.qmin, config.qmax, config.dtype)


def _infer(config: MatmulConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    a, b = specs
    if isinstance(config.multiplier, tuple) and a.shape[-3:-2] != (len(config.multiplier),):
        raise LoweringError(f"matmul of {a.shape} with {len(config.multiplier)} multipliers")
    columns = b.shape[-2] if config.transpose_b else b.shape[-1]
    return TensorSpec((*a.shape[:-1], columns), config.dtype)


register(Operator("matmul", MatmulConfig, _infer, _reference))
