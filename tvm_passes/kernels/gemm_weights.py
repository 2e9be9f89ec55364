"""How the weights of ``linear`` and ``conv2d`` lie in the library, and how a product gets at them.

Codes of up to six bits are stored as bit planes and unpacked in front of the loop over the pixels
that pass over them.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.bit_planes import PLANES, Strip
from tvm_passes.kernels.builder import int32
from tvm_passes.kernels.dot import WORD
from tvm_passes.kernels.gemm_tile import (
    Access,
    cell_width,
    group_cells,
    group_starts,
    pack_weights,
)
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.parallel import PER_BYTE, tasks
from tvm_passes.ops.base import TensorSpec


class Panels(Protocol):
    """Weights as a product reads them."""

    @property
    def codes(self) -> Buffer:
        """int8, in the order of ``gemm_tile.pack_weights``."""
        ...

    def open(self, panel: Expr, vectors: int) -> Expr:
        """Offset of a panel of so many vectors of channels, after it was brought to ``codes``."""
        ...


@dataclass(frozen=True)
class AllPanels:
    """All panels lie there.

    Attributes:
        codes: see ``Panels``.
        panel_bytes: of every panel but the last one, which may be smaller.
    """

    codes: Buffer
    panel_bytes: int

    def open(self, panel: Expr, vectors: int) -> Expr:
        """See ``Panels``."""
        del vectors
        return panel * self.panel_bytes


@dataclass(frozen=True)
class WeightShape:
    """The weights of a product, by what its instructions take.

    Attributes:
        access: how the implicit matrix lies in the input.
        channels: output channels.
        lanes: channels of a vector.
        width: neighbouring codes of one channel.
    """

    access: Access
    channels: int
    lanes: int
    width: int

    @property
    def blocks(self) -> int:
        """Vectors of channels."""
        return -(-self.channels // self.lanes)

    @property
    def cells(self) -> int:
        """Groups of ``width`` codes of every channel."""
        return self.access.runs * len(group_starts(self.access.run_length, self.width))

    @property
    def block_bytes(self) -> int:
        """Codes of a vector of channels."""
        return self.cells * self.lanes * self.width


@dataclass(frozen=True)
class PlainWeights:
    """One byte a code, in the order of the product."""

    shape: WeightShape

    @property
    def spec(self) -> TensorSpec:
        """What is stored."""
        return TensorSpec((self.shape.blocks * self.shape.block_bytes,), "int8")

    def pack(self, rows: NDArray[np.int8], vectors: int) -> NDArray[np.int8]:
        """What is stored of weights [N, K] for panels of ``vectors`` vectors."""
        shape = self.shape
        return pack_weights(rows, shape.access, vectors, shape.lanes, shape.width)

    def panels(self, stored: Buffer, vectors: int, passes: int) -> Panels:
        """The panels of ``vectors`` vectors, ready for so many passes over all of them."""
        del passes
        return AllPanels(stored, vectors * self.shape.block_bytes)


@dataclass(frozen=True)
class PackedWeights:
    """The bit planes of every vector of channels, then the least code of every channel.

    Attributes:
        shape: of the weights.
        strip: of a vector of channels.
    """

    shape: WeightShape
    strip: Strip

    @property
    def spec(self) -> TensorSpec:
        """What is stored."""
        return TensorSpec((self.shape.blocks * (self.strip.nbytes + self.shape.lanes),), "uint8")

    def pack(self, rows: NDArray[np.int8], vectors: int) -> NDArray[np.uint8]:
        """What is stored of weights [N, K], whatever the panels."""
        del vectors
        shape = self.shape
        cells = group_cells(rows, shape.access, shape.lanes, shape.width)
        blocks = cells.reshape(shape.blocks, shape.lanes, shape.cells, shape.width)
        packed = [self.strip.pack(block) for block in blocks.swapaxes(1, 2)]
        planes, least = zip(*packed, strict=True)
        return np.concatenate([*planes, *(each.view(np.uint8) for each in least)])

    def panels(self, stored: Buffer, vectors: int, passes: int) -> Panels:
        """Everything is unpacked ahead of several passes; for a single one every panel when its
        turn comes, so that it is read out of the first-level cache."""
        if passes == 1:
            return _OnePanel(self, stored, vectors)
        shape = self.shape
        codes = T.alloc_buffer((shape.blocks * shape.block_bytes,), "int8")
        whole, rest = divmod(shape.blocks, vectors)

        def unpack(block: Expr) -> None:
            panel = T.bind(tirx.floordiv(block, vectors))
            size = int32(vectors)
            if rest:
                size = tirx.Select(panel < whole, size, int32(rest))
            first = panel * (vectors * shape.block_bytes)
            self.unpack(stored, block, codes, first, block - panel * vectors, size)

        tasks(shape.blocks, shape.block_bytes * PER_BYTE, unpack)
        return AllPanels(codes, vectors * shape.block_bytes)

    def unpack(
        self, stored: Buffer, block: Expr, codes: Buffer, first: Expr, place: Expr, vectors: Expr
    ) -> None:
        """Emit what brings vector ``block`` of channels back.

        Args:
            stored: what ``pack`` made.
            block: its number.
            codes: int8.
            first: offset of its panel in it.
            place: number of the vector in the panel.
            vectors: how many the panel has.
        """
        shape = self.shape
        own = shape.lanes * shape.width
        least = shape.blocks * self.strip.nbytes + block * shape.lanes
        start = block * self.strip.nbytes
        stride = T.bind(vectors * own)
        self.strip.unpack(stored, start, least, codes, T.bind(first + place * own), stride)


class _OnePanel:
    """The panel that was opened last."""

    def __init__(self, weights: PackedWeights, stored: Buffer, vectors: int) -> None:
        self.weights, self.stored, self.most = weights, stored, vectors
        size = min(vectors, weights.shape.blocks) * weights.shape.block_bytes
        self.codes = T.alloc_buffer((size,), "int8")

    def open(self, panel: Expr, vectors: int) -> Expr:
        with T.serial(0, vectors) as place:
            block, first = panel * self.most + place, int32(0)
            self.weights.unpack(self.stored, block, self.codes, first, place, int32(vectors))
        return int32(0)


def weight_layout(
    access: Access, channels: int, x_dtype: str, w_dtype: str, isa: Isa
) -> PlainWeights | PackedWeights:
    """How weights lie in the library.

    Args:
        access: how the implicit matrix lies in the input.
        channels: output channels.
        x_dtype: of the input.
        w_dtype: of the weights: int8, or int2 to int6.
        isa: instruction set.
    """
    shape = WeightShape(access, channels, isa.lanes, cell_width(access, x_dtype, isa))
    if w_dtype == "int8":
        return PlainWeights(shape)
    bits, register = int(w_dtype.removeprefix("int")), isa.lanes * WORD
    return PackedWeights(shape, Strip(bits, shape.lanes, shape.width, shape.cells, register))


def weight_dtype(rows: NDArray[np.int8], access: Access, x_dtype: str, isa: Isa) -> str:
    """The narrowest type of weights [N, K] that makes the library smaller: int2 to int6, or int8.

    The codes of every row lie in ``[least, least + 2^bits - 1]``, with a ``least`` of its own.
    """
    wide = rows.astype(np.int64)
    least, greatest = wide.min(1), wide.max(1)
    if access.run_length % (2 * WORD):  # zeros fill the last group of a run
        least, greatest = np.minimum(least, 0), np.maximum(greatest, 0)
    span = int((greatest - least).max())
    fitting = (f"int{bits}" for bits in PLANES if span < 1 << bits)
    dtype = next(fitting, "int8")
    packed, plain = (
        weight_layout(access, len(rows), x_dtype, each, isa).spec.shape[0]
        for each in (dtype, "int8")
    )
    return dtype if packed < plain else "int8"
