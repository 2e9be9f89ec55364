"""Weights of two to six bits as bit planes.

The codes of one output channel span less than ``2^bits``. What is stored of each is its distance
from the channel's least code, cut in planes of four, two and one bits, so that none crosses a byte.

Codes keep the order in which a product reads them, ``[cell][channel][width]``, and are cut in
vectors of whole cells. Byte ``i`` of a plane's vector holds code ``i`` of two, four or eight
neighbouring vectors, the first one in its lowest bits: shifts and masks alone bring them back.
"""

from dataclasses import dataclass
from functools import reduce
from math import lcm
from operator import or_

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import int32, load, splat, store

PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2)}  # lowest bits first
TURN = 8  # vectors that fill the bytes of every plane


@dataclass(frozen=True)
class PackedPanel:
    """The weights of one panel of output channels.

    Attributes:
        bits: of a code, a key of ``PLANES``.
        channels: output channels.
        width: neighbouring codes of one channel.
        cells: groups of ``width`` codes of every channel.
        register: bytes of a vector register.
    """

    bits: int
    channels: int
    width: int
    cells: int
    register: int

    @property
    def codes(self) -> int:
        """Number of weights, zeros that fill groups and vectors of channels included."""
        return self.cells * self.channels * self.width

    @property
    def vector(self) -> int:
        """Codes that are unpacked together: whole cells and whole registers."""
        return lcm(self.channels * self.width, self.register)

    @property
    def vectors(self) -> int:
        """Vectors of all codes; what is left of the last one is zero."""
        return -(-self.codes // self.vector)

    @property
    def nbytes(self) -> int:
        """Bytes of all planes."""
        return sum(map(self._plane_bytes, PLANES[self.bits]))

    def _plane_bytes(self, bits: int) -> int:
        return -(-self.vectors * bits // TURN) * self.vector

    def least(self, codes: NDArray[np.int8]) -> NDArray[np.int8]:
        """The least code of every channel."""
        result: NDArray[np.int8] = codes.reshape(-1, self.channels, self.width).min((0, 2))
        return result

    def pack(self, codes: NDArray[np.int8]) -> NDArray[np.uint8]:
        """All planes one after the other, [nbytes]."""
        cells = codes.reshape(-1, self.channels, self.width).astype(np.int64)
        distances = cells - self.least(codes)[:, None]
        assert distances.max() < 1 << self.bits, f"weights of more than {self.bits} bits"
        whole = np.zeros(-(-self.vectors // TURN) * TURN * self.vector, np.uint8)
        whole[: codes.size] = distances.ravel()
        planes, done = [], 0
        for bits in PLANES[self.bits]:
            parts = (whole >> done & (1 << bits) - 1).reshape(-1, TURN // bits, self.vector)
            shifts = np.arange(0, TURN, bits, dtype=np.uint8)[:, None]
            packed = np.bitwise_or.reduce(parts << shifts, axis=1).ravel()
            planes.append(packed[: self._plane_bytes(bits)])
            done += bits
        return np.concatenate(planes)

    def unpack(self, packed: Buffer, start: Expr, least: Expr, codes: Buffer) -> None:
        """Emit what brings the codes back.

        Args:
            packed: uint8.
            start: offset of the planes in it.
            least: offset of the least codes in it.
            codes: int8, room for ``vectors`` vectors.
        """
        cell = self.channels * self.width
        order = [int32(place % cell // self.width) for place in range(self.vector)]
        each = T.bind(load(packed, least, self.channels))
        # a shuffle gives no more lanes than it takes
        wide = tirx.Shuffle([each] * (self.vector // self.channels), order)
        dtype = f"int8x{self.vector}"
        lowest = T.bind(T.reinterpret(dtype, wide))

        def turn(index: Expr, count: int) -> None:
            bytes_of: dict[int, Expr] = {}  # the vector of each plane that is being taken apart
            for place in range(count):
                parts, base, done = [], start, 0
                for bits in PLANES[self.bits]:
                    neighbours = TURN // bits
                    if place % neighbours == 0:
                        offset = base + (index * bits + place // neighbours) * self.vector
                        bytes_of[bits] = T.bind(load(packed, offset, self.vector))
                    source = place % neighbours * bits
                    parts.append(_field(bytes_of[bits], source, done, bits, self.vector))
                    base, done = base + self._plane_bytes(bits), done + bits
                distances = T.reinterpret(dtype, reduce(or_, parts))
                store(codes, (index * TURN + place) * self.vector, distances + lowest, self.vector)

        whole, rest = divmod(self.vectors, TURN)
        if whole:
            with T.serial(0, whole) as index:
                turn(index, TURN)
        if rest:
            turn(int32(whole), rest)


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
