"""The constant that attention adds to its logits, as the kernels want it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr

from tvm_passes.kernels.builder import int32
from tvm_passes.kernels.isa import Isa
from tvm_passes.ops.base import TensorSpec

ABSENT = -(1 << 30)  # logit of a key that pads a register: its weight is zero


class Bias:
    """A constant bias [.., N]: its rows padded to whole registers of keys that are absent."""

    def __init__(self, leading: tuple[int, ...], keys: int, padded: int) -> None:
        """Set the geometry: extents of batch, head and query, length of a row before and after."""
        self.leading, self.keys, self.padded = leading, keys, padded
        self.specs = [TensorSpec((*leading, padded), "int32")]

    @classmethod
    def of(cls, specs: Sequence[TensorSpec], keys: int, isa: Isa) -> "Bias | None":
        """The bias of a call, if it has one."""
        if not specs:
            return None
        leading = ((1,) * 4 + specs[0].shape)[-4:-1]
        return cls(leading, keys, -(-keys // isa.lanes) * isa.lanes)

    def pack(self, values: NDArray[np.int32]) -> NDArray[np.int32]:
        """The constant as ``specs`` says."""
        wide = np.full((*self.leading, self.padded), ABSENT, np.int32)
        wide[..., : self.keys] = values.reshape((1,) * (4 - values.ndim) + values.shape)
        return wide

    def row(self, indices: Sequence[Expr]) -> Expr:
        """Start of the row of (batch, head, query); axes of extent 1 are broadcast."""
        position: Expr = int32(0)
        for extent, index in zip(self.leading, indices, strict=True):
            position = position * extent + (index if extent > 1 else 0)
        return position * self.padded
