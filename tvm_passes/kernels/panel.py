"""Panels: the second operand of a product of two computed tensors, packed at run time.

A panel holds K codes of every output column in the order in which the micro-kernel reads them (see
``panel_micro``), ``[tile][k/group][column][group]``. A tile is ``vectors`` registers of output
columns. A group is four codes where the ISA has a four-way dot product of bytes, and eight for
``smmla``; both are kept in int32 words. Without either it is one code, in int16.

x86 multiplies u8 by s8: there the panel holds ``code + 128``, and products are greater by 128 times
the sum of the row's codes (``Panel.offset``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import int32, lane_slice, lanes_of, load, splat, store, vector_type
from tvm_passes.kernels.dot import WORD, flip_signs
from tvm_passes.kernels.fixed_point import widen
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import pieces

CHUNK = 16  # codes in 128 bits


@dataclass(frozen=True)
class Rows:
    """Local rows of equal length, in the order ``[chunk][row][code]``.

    One block of rows is read chunk by chunk, so that the same chunk of all rows is contiguous.

    Attributes:
        buffer: where they are.
        count: number of rows.
        first: where they begin.
        packed: elements are int32 words of four codes.
        chunk: codes of a row that lie together.
    """

    buffer: Buffer
    count: int
    first: int = 0
    packed: bool = False
    chunk: int = CHUNK

    @staticmethod
    def size(count: int, length: int) -> int:
        """Codes of ``count`` rows."""
        return -(-length // CHUNK) * CHUNK * count

    def at(self, row: Expr | int, column: Expr | int) -> Expr:
        """Where a column of a row lies; words are addressed by their first code."""
        chunk, rest = column // self.chunk, column % self.chunk
        position = (chunk * self.count + row) * self.chunk + rest
        return self.first + (position // WORD if self.packed else position)

    def words(self, row: Expr | int, column: Expr | int, count: int) -> Expr:
        """``count`` words that lie together, from a column of a row on."""
        at = self.at(row, column)
        if self.packed:
            return load(self.buffer, at, count)
        return T.reinterpret(vector_type("int32", count), load(self.buffer, at, WORD * count))

    def put(self, row: Expr | int, column: Expr | int, value: Expr) -> None:
        """Store codes of one row, chunk by chunk; ``column`` begins a vector of their number."""
        lanes = lanes_of(value)
        width = min(lanes, self.chunk)
        for start in range(0, lanes, width):
            part = lane_slice(value, start, width)
            store(self.buffer, self.at(row, column + start), part, width)


@dataclass(frozen=True)
class Panel:
    """Geometry of a panel.

    Attributes:
        depth: K, codes of a column.
        columns: output columns.
        vectors: registers of output columns in a tile.
        isa: instruction set.
        matrix: multiply pairs of rows by ``smmla``.
    """

    depth: int
    columns: int
    vectors: int
    isa: Isa
    matrix: bool = False

    @property
    def group(self) -> int:
        """Codes of a column that lie together."""
        return 2 * WORD if self.matrix else WORD if self.isa.dot else 1

    @property
    def groups(self) -> int:
        """Groups of a column."""
        return -(-self.depth // self.group)

    @property
    def elements(self) -> int:
        """Elements of the buffer in a group."""
        return 2 if self.matrix else 1

    @property
    def chunk(self) -> int:
        """Codes that lie together in the rows which the panel is multiplied by."""
        return self.group if self.matrix else CHUNK

    @property
    def blocks(self) -> int:
        """Registers of output columns."""
        return -(-self.columns // self.isa.lanes)

    @property
    def offset(self) -> int:
        """What is added to every code."""
        return 128 if self.isa.dot == "vpdpbusd" else 0

    @property
    def code_dtype(self) -> str:
        """dtype of the rows that the panel is multiplied by."""
        return "int8" if self.isa.dot else "int16"

    def allocate(self) -> Buffer:
        """A local buffer for one panel."""
        size = self.blocks * self.isa.lanes * self.groups * self.elements
        return T.alloc_buffer((size,), "int32" if self.isa.dot else "int16")

    def at(self, block: Expr, group: Expr | int, vectors: int, column: Expr | int) -> Expr:
        """Where a group lies: of a column of the tile of ``vectors`` that begins with ``block``."""
        lanes = self.isa.lanes
        return (block * (lanes * self.groups) + group * (vectors * lanes) + column) * self.elements

    def pack_columns(self, panel: Buffer, source: Buffer, first: Expr, stride: int) -> None:
        """Pack columns whose codes are contiguous: b transposed, the keys of attention.

        Args:
            panel: the local buffer.
            source: int8 codes.
            first: the first code of column 0.
            stride: distance of two columns.
        """
        whole, rest = divmod(self.depth, self.group)

        def tile(block: Expr, vectors: int, last: bool) -> None:
            del last
            with T.serial(0, vectors * self.isa.lanes) as lane:
                column = tirx.min(block * self.isa.lanes + lane, int32(self.columns - 1))

                def put(index: Expr | int, valid: int) -> None:
                    code = first + column * stride + index * self.group
                    target = self.at(block, index, vectors, lane)
                    if not self.isa.dot:
                        T.buffer_store(panel, source[code].astype("int16"), [target])
                        return
                    for word in range(self.elements):
                        count = min(max(valid - word * WORD, 0), WORD)
                        value = self._flipped(word_of(source, code + word * WORD, count))
                        T.buffer_store(panel, value, [target + word])

                with T.serial(0, whole) as index:
                    put(index, self.group)
                if rest:
                    put(whole, rest)

        for_tiles(self.blocks, self.vectors, False, tile)

    def pack_rows(self, panel: Buffer, source: Buffer, first: Expr, stride: int) -> None:
        """Pack columns whose codes are ``stride`` apart: b as it is, the values of attention.

        Args:
            panel: the local buffer.
            source: int8 codes.
            first: the first code of column 0; column 1 is its neighbour.
            stride: distance of two codes of a column.
        """
        lanes = self.isa.lanes
        whole, rest = divmod(self.depth, self.group)
        ragged = self.columns % lanes

        def tile(block: Expr, vectors: int, last: bool) -> None:
            def put(index: Expr | int, valid: int, column: int, count: int) -> None:
                code = first + index * (self.group * stride) + block * lanes + column
                rows = [load(source, code + row * stride, count) for row in range(valid)]
                target = self.at(block, index, vectors, column)
                self._store_groups(panel, target, rows, count)

            for column, count in pieces(vectors * lanes - (lanes - ragged if last else 0), CHUNK):
                if whole:
                    with T.serial(0, whole) as index:
                        put(index, self.group, column, count)
                if rest:
                    put(whole, rest, column, count)

        for_tiles(self.blocks, self.vectors, ragged > 0, tile)

    def _store_groups(self, panel: Buffer, at: Expr, rows: Sequence[Expr], count: int) -> None:
        """Store a group of each of ``count`` columns, from rows of codes; missing ones are zero."""
        if not self.isa.dot:
            store(panel, at, widen(rows[0], "int16"), count)
            return
        full = [*rows, *[splat(tirx.const(0, "int8"), count)] * (self.group - len(rows))]
        words = [
            T.bind(self._flipped(_words_of(full[start : start + WORD], count)))
            for start in range(0, self.group, WORD)
        ]
        if count == 1:
            for index, word in enumerate(words):
                T.buffer_store(panel, word, [at + index])
            return
        value = words[0] if len(words) == 1 else _zip(words[0], words[1], count)
        store(panel, at, value, count * self.elements)

    def _flipped(self, words: Expr) -> Expr:
        return flip_signs(words) if self.offset else words


def for_tiles(extent: int, tile: int, peel: bool, emit: Callable[[Expr, int, bool], None]) -> None:
    """``emit(first, size, last)`` for full tiles in a loop, and a smaller one at the end.

    With ``peel`` the last tile is emitted on its own even if it is full; only then is ``last`` set.
    """
    full = (extent - peel) // tile
    rest = extent - full * tile
    if full:
        with T.serial(0, full) as index:
            emit(index * tile, tile, False)
    if rest:
        emit(int32(full * tile), rest, peel)


def store_lanes(out: Buffer, offset: Expr, value: Expr, lanes: int, valid: int) -> None:
    """Store the first ``valid`` lanes of a vector."""
    if valid == lanes:
        store(out, offset, value, lanes)
        return
    value = T.bind(value)
    for start, width in pieces(valid, CHUNK):
        store(out, offset + start, lane_slice(value, start, width), width)


def word_of(source: Buffer, code: Expr, valid: int) -> Expr:
    """``valid`` int8 codes as the low bytes of an int32; never reads past them."""
    if valid == WORD:
        return T.reinterpret("int32", load(source, code, WORD))
    word: Expr = int32(0)
    for position in range(valid):
        byte = source[code + position].astype("int32") & int32(0xFF)
        word = word | (byte << int32(8 * position))
    return word


def _words_of(rows: Sequence[Expr], count: int) -> Expr:
    """Words of ``count`` columns from four rows of codes."""
    a, b, c, d = (T.bind(row) for row in rows)
    if count == 1:
        word = widen(widen(a, "uint8"), "int32")
        for position, code in enumerate((b, c, d), start=1):
            word = word | (widen(widen(code, "uint8"), "int32") << int32(8 * position))
        return word
    low = T.bind(T.reinterpret(f"int16x{count}", _zip(a, b, count)))
    high = T.bind(T.reinterpret(f"int16x{count}", _zip(c, d, count)))
    return T.reinterpret(f"int32x{count}", _zip(low, high, count))


def _zip(a: Expr, b: Expr, count: int) -> Expr:
    """Lanes of ``a`` and ``b`` in turn."""
    order = [int32(lane // 2 + (count if lane % 2 else 0)) for lane in range(2 * count)]
    return tirx.Shuffle([a, b], order)
