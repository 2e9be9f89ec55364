"""How the weights of ``linear`` and ``conv2d`` lie in the library, and how a product gets at them.

Codes of up to six bits are stored as bit planes. They are brought back a panel of output channels
at a time, in front of the loop over the pixels that pass over it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.bit_planes import PLANES, PackedPanel
from tvm_passes.kernels.builder import int32
from tvm_passes.kernels.dot import WORD
from tvm_passes.kernels.gemm_tile import Access, cell_width, default_schedule, group_starts
from tvm_passes.kernels.isa import Isa
from tvm_passes.ops.base import TensorSpec


class WeightLayout(Protocol):
    """What the generator of a product needs to know of its weights."""

    @property
    def spec(self) -> TensorSpec:
        """What is stored."""
        ...

    def pack(self, codes: NDArray[np.int8]) -> NDArray[np.int8] | NDArray[np.uint8]:
        """From ``gemm_tile.pack_weights`` to what is stored."""
        ...

    def room(self, stored: Buffer) -> Buffer:
        """The int8 buffer that the product reads; allocated here if it is not ``stored``."""
        ...

    def open(self, stored: Buffer, room: Buffer, panel: Expr, channels: int) -> Expr:
        """Offset of a panel of so many channels in ``room``, after it was brought there."""
        ...


@dataclass(frozen=True)
class PlainWeights:
    """One byte a code.

    Attributes:
        panel_bytes: of every panel but the last one.
        nbytes: in all.
    """

    panel_bytes: int
    nbytes: int

    @property
    def spec(self) -> TensorSpec:
        """See ``WeightLayout``."""
        return TensorSpec((self.nbytes,), "int8")

    def pack(self, codes: NDArray[np.int8]) -> NDArray[np.int8]:
        """See ``WeightLayout``."""
        return codes

    def room(self, stored: Buffer) -> Buffer:
        """See ``WeightLayout``."""
        return stored

    def open(self, stored: Buffer, room: Buffer, panel: Expr, channels: int) -> Expr:
        """See ``WeightLayout``."""
        del stored, room, channels
        return panel * self.panel_bytes


@dataclass(frozen=True)
class PackedWeights:
    """The planes of every panel, then the least code of every channel.

    Attributes:
        panel: every panel but the last one, which may have fewer channels.
        channels: of all panels.
    """

    panel: PackedPanel
    channels: int

    @property
    def spec(self) -> TensorSpec:
        """See ``WeightLayout``."""
        return TensorSpec((self._planes + self.channels,), "uint8")

    @property
    def _planes(self) -> int:
        return sum(panel.nbytes for panel in self._panels())

    def _panels(self) -> Iterator[PackedPanel]:
        most = self.panel.channels
        for first in range(0, self.channels, most):
            yield replace(self.panel, channels=min(most, self.channels - first))

    def pack(self, codes: NDArray[np.int8]) -> NDArray[np.uint8]:
        """See ``WeightLayout``."""
        planes, least, done = [], [], 0
        for panel in self._panels():
            own = codes[done : done + panel.codes]
            planes.append(panel.pack(own))
            least.append(panel.least(own).view(np.uint8))
            done += panel.codes
        return np.concatenate([*planes, *least])

    def room(self, stored: Buffer) -> Buffer:
        """See ``WeightLayout``."""
        del stored
        most = max(panel.vectors * panel.vector for panel in self._panels())
        return T.alloc_buffer((most,), "int8")

    def open(self, stored: Buffer, room: Buffer, panel: Expr, channels: int) -> Expr:
        """See ``WeightLayout``."""
        least = self._planes + panel * self.panel.channels
        start = panel * self.panel.nbytes
        replace(self.panel, channels=channels).unpack(stored, start, least, room)
        return int32(0)


def weight_layout(
    access: Access, channels: int, x_dtype: str, w_dtype: str, isa: Isa, vectors: int
) -> WeightLayout:
    """How weights lie in the library.

    Args:
        access: how the implicit matrix lies in the input.
        channels: output channels.
        x_dtype: of the input.
        w_dtype: of the weights: int8, or int2 to int6.
        isa: instruction set.
        vectors: vectors of output channels of a panel.
    """
    width = cell_width(access, x_dtype, isa)
    cells = access.runs * len(group_starts(access.run_length, width))
    padded = -(-channels // isa.lanes) * isa.lanes
    most = min(vectors * isa.lanes, padded)
    if w_dtype == "int8":
        return PlainWeights(vectors * isa.lanes * width * cells, padded * width * cells)
    bits = int(w_dtype.removeprefix("int"))
    return PackedWeights(PackedPanel(bits, most, width, cells, isa.lanes * WORD), padded)


def weight_dtype(rows: NDArray[np.int8], access: Access, x_dtype: str, isa: Isa) -> str:
    """The narrowest type of weights [N, K] that makes the library smaller: int2 to int6, or int8.

    The codes of every row lie in ``[least, least + 2^bits - 1]``, with a ``least`` of its own.
    """
    wide = rows.astype(np.int64)
    least, greatest = wide.min(1), wide.max(1)
    if access.run_length % (2 * WORD):  # zeros fill the last group of a run
        least, greatest = np.minimum(least, 0), np.maximum(greatest, 0)
    span = int((greatest - least).max())
    bits = next((bits for bits in sorted(PLANES) if span < 1 << bits), None)
    if bits is None:
        return "int8"
    vectors = default_schedule(access, len(rows), x_dtype, isa).vectors
    packed, plain = (
        weight_layout(access, len(rows), x_dtype, dtype, isa, vectors).spec.shape[0]
        for dtype in (f"int{bits}", "int8")
    )
    return f"int{bits}" if packed < plain else "int8"
