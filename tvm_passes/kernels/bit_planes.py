"""Weights of two to six bits as bit planes.

The codes of one output channel span less than ``2^bits``. What is stored of each is its distance
from the channel's least code, cut in planes of four, two and one bits, so that none crosses a byte.

A strip holds the codes of as many channels as an instruction multiplies, ``[cell][lane][width]``,
and is cut in vectors that fill registers. Byte ``i`` of a plane's vector holds code ``i`` of two,
four or eight neighbouring vectors, the first one in its lowest bits: shifts and masks alone bring
them back.
"""

from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import int32, lane_slice, load, splat, store

PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2)}  # lowest bits first
TURN = 8  # vectors that fill the bytes of every plane


@dataclass(frozen=True)
class Strip:
    """How the weights of some output channels are stored.

    Attributes:
        bits: of a code, a key of ``PLANES``.
        lanes: output channels.
        width: neighbouring codes of one channel.
        cells: groups of ``width`` codes of every channel.
        register: bytes of a vector register; a power of two, like ``lanes`` and ``width``.
    """

    bits: int
    lanes: int
    width: int
    cells: int
    register: int

    @property
    def vector(self) -> int:
        """Codes that are unpacked together, whole cells."""
        return max(self.lanes * self.width, self.register)

    @property
    def _share(self) -> int:
        """Cells of a vector."""
        return self.vector // (self.lanes * self.width)

    @property
    def nbytes(self) -> int:
        """Bytes of all planes."""
        return sum(map(self._plane_bytes, PLANES[self.bits]))

    def _plane_bytes(self, bits: int) -> int:
        vectors = -(-self.cells // self._share)
        return -(-vectors * bits // TURN) * self.vector

    def pack(self, codes: NDArray[np.int8]) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
        """Of codes [cells, lanes, width] all planes, [nbytes], and the least codes, [lanes]."""
        least = codes.min((0, 2))
        distances = codes.astype(np.int64) - least[:, None]
        assert distances.max() < 1 << self.bits, f"weights of more than {self.bits} bits"
        turns = -(-distances.size // (TURN * self.vector))
        whole = np.zeros(turns * TURN * self.vector, np.uint8)
        whole[: distances.size] = distances.ravel()
        planes, done = [], 0
        for bits in PLANES[self.bits]:
            parts = (whole >> done & (1 << bits) - 1).reshape(-1, TURN // bits, self.vector)
            shifts = np.arange(0, TURN, bits, dtype=np.uint8)[:, None]
            packed = np.bitwise_or.reduce(parts << shifts, axis=1).ravel()
            planes.append(packed[: self._plane_bytes(bits)])
            done += bits
        return np.concatenate(planes), least

    def unpack(
        self, packed: Buffer, start: Expr, least: Expr, codes: Buffer, to: Expr, stride: Expr | int
    ) -> None:
        """Emit what brings the codes back.

        Args:
            packed: uint8.
            start: offset of the planes in it.
            least: offset of the least codes in it.
            codes: int8.
            to: offset of the first cell in it.
            stride: distance of two cells in it.
        """
        order = [int32(place // self.width % self.lanes) for place in range(self.vector)]
        each = T.bind(load(packed, least, self.lanes))
        # a shuffle gives no more lanes than it takes
        wide = tirx.Shuffle([each] * (self.vector // self.lanes), order)
        lowest = T.bind(T.reinterpret(f"int8x{self.vector}", wide))
        own = self.lanes * self.width

        def emit(turn: Expr, cells: int) -> None:
            for cell in range(cells):
                vector, part = divmod(cell, self._share)
                if part == 0:
                    distances = T.bind(self._distances(planes, packed, start, turn, vector))
                    value = T.bind(T.reinterpret(f"int8x{self.vector}", distances) + lowest)
                place = to + (turn * (TURN * self._share) + cell) * stride
                store(codes, place, lane_slice(value, part * own, own), own)

        planes: dict[int, Expr] = {}
        whole, rest = divmod(self.cells, TURN * self._share)
        if whole:
            with T.serial(0, whole) as turn:
                emit(turn, TURN * self._share)
        if rest:
            emit(int32(whole), rest)

    def _distances(
        self, planes: dict[int, Expr], packed: Buffer, start: Expr, turn: Expr, vector: int
    ) -> Expr:
        """The distances of a vector of a turn; ``planes`` keeps the bytes that it shares."""
        parts, done = [], 0
        for bits in PLANES[self.bits]:
            neighbours = TURN // bits
            if vector % neighbours == 0:
                offset = start + (turn * bits + vector // neighbours) * self.vector
                planes[bits] = T.bind(load(packed, offset, self.vector))
            source = vector % neighbours * bits
            parts.append(_field(planes[bits], source, done, bits, self.vector))
            start, done = start + self._plane_bytes(bits), done + bits
        return reduce(or_, parts)


def _field(byte: Expr, source: int, target: int, bits: int, lanes: int) -> Expr:
    """``bits`` bits from bit ``source`` on, brought to bit ``target``; all others zero."""

    def constant(value: int) -> Expr:
        return splat(tirx.const(value, "uint8"), lanes)

    if source > target:
        byte = byte >> constant(source - target)
    elif source < target:
        byte = byte << constant(target - source)
    if source + bits == TURN and target == 0:  # nothing else is left
        return byte
    return byte & constant((1 << bits) - 1 << target)
