"""Panels: the second operand of a product of two computed tensors, packed at run time.

A panel holds K codes of every output column in the order in which the micro-kernel reads them,
``[tile][k/4][vector][lane][4]`` where the ISA has a four-way dot product of bytes, in words of
four; else ``[tile][k][vector][lane]`` in int16. A tile is ``vectors`` registers of output columns.

x86 multiplies u8 by s8: there the panel holds ``code + 128``, and products are greater by 128 times
the sum of the row's codes (``Panel.offset``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import Accumulators, int32, load, splat, store, vector_type
from tvm_passes.kernels.fixed_point import widen
from tvm_passes.kernels.isa import Isa

SIGN_FLIP = -0x7F7F7F80  # 0x80808080: xor turns four s8 into u8 plus 128
CHUNK = 16  # codes of a row that lie together


@dataclass(frozen=True)
class Rows:
    """Local rows of equal length, in the order ``[chunk][row][16]``.

    One block of rows is read chunk by chunk, so that the same chunk of all rows is contiguous.

    Attributes:
        buffer: where they are.
        count: number of rows.
        first: where they begin.
        packed: elements are int32 words of four codes.
    """

    buffer: Buffer
    count: int
    first: int = 0
    packed: bool = False

    @staticmethod
    def size(count: int, length: int) -> int:
        """Elements of ``count`` rows."""
        return -(-length // CHUNK) * CHUNK * count

    def at(self, row: Expr | int, column: Expr | int) -> Expr:
        """Where a column of a row lies; words are addressed by their first code."""
        chunk, rest = column // CHUNK, column % CHUNK
        position = (chunk * self.count + row) * CHUNK + rest
        return self.first + (position // 4 if self.packed else position)

    def words(self, row: Expr | int, group: Expr | int, count: int) -> Expr:
        """``count`` words of one chunk, from word ``group`` of the row."""
        at = self.at(row, group * 4)
        if self.packed:
            return load(self.buffer, at, count)
        return T.reinterpret(vector_type("int32", count), load(self.buffer, at, 4 * count))


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


@dataclass(frozen=True)
class Panel:
    """Geometry of a panel.

    Attributes:
        depth: K, codes of a column.
        columns: output columns.
        vectors: registers of output columns in a tile.
        isa: instruction set.
    """

    depth: int
    columns: int
    vectors: int
    isa: Isa

    @property
    def group(self) -> int:
        """Codes in one element of the panel."""
        return 4 if self.isa.dot else 1

    @property
    def groups(self) -> int:
        """Elements of one column."""
        return -(-self.depth // self.group)

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
        size = self.blocks * self.isa.lanes * self.groups
        return T.alloc_buffer((size,), "int32" if self.isa.dot else "int16")

    def start(self, block: Expr) -> Expr:
        """Where the tile that begins with ``block`` lies."""
        return block * (self.isa.lanes * self.groups)

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
            width = vectors * self.isa.lanes
            with T.serial(0, width) as lane:
                column = tirx.min(block * self.isa.lanes + lane, int32(self.columns - 1))
                code = first + column * stride
                target = self.start(block) + lane

                def put(index: Expr | int, valid: int) -> None:
                    element = self._element(source, code + index * self.group, valid)
                    T.buffer_store(panel, element, [target + index * width])

                with T.serial(0, whole) as index:
                    put(index, self.group)
                if rest:
                    put(whole, rest)

        for_tiles(self.blocks, self.vectors, False, tile)

    def _element(self, source: Buffer, code: Expr, valid: int) -> Expr:
        """One element of the panel, from ``valid`` codes."""
        if self.group == 1:
            return source[code].astype("int16")
        return self._flipped(word_of(source, code, valid))

    def _flipped(self, words: Expr) -> Expr:
        if not self.offset:
            return words
        lanes = int(str(words.ty.dtype).partition("x")[2] or 1)
        return words ^ splat(int32(SIGN_FLIP), lanes)

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
            width = vectors * lanes

            def put(index: Expr | int, valid: int, column: int, count: int) -> None:
                code = first + index * (self.group * stride) + block * lanes + column
                rows = [load(source, code + row * stride, count) for row in range(valid)]
                target = self.start(block) + index * width + column
                store(panel, target, self._interleaved(rows, count), count)

            for column, count in pieces(width - lanes + ragged if last else width):
                if whole:
                    with T.serial(0, whole) as index:
                        put(index, self.group, column, count)
                if rest:
                    put(whole, rest, column, count)

        for_tiles(self.blocks, self.vectors, ragged > 0, tile)

    def _interleaved(self, rows: Sequence[Expr], count: int) -> Expr:
        """Elements of ``count`` columns from rows of codes; missing ones are zero."""
        if self.group == 1:
            return widen(rows[0], "int16")
        zero = splat(tirx.const(0, "int8"), count)
        a, b, c, d = (T.bind(row) for row in [*rows, *[zero] * (4 - len(rows))])
        if count == 1:
            unsigned = [widen(widen(code, "uint8"), "int32") for code in (a, b, c, d)]
            word = unsigned[0]
            for position in (1, 2, 3):
                word = word | (unsigned[position] << int32(8 * position))
            return self._flipped(word)
        low = T.reinterpret(f"int16x{count}", _zip(a, b, count))
        high = T.reinterpret(f"int16x{count}", _zip(c, d, count))
        words = T.reinterpret(f"int32x{count}", _zip(T.bind(low), T.bind(high), count))
        return self._flipped(words)

    def multiply(
        self,
        acc: Accumulators,
        panel: Buffer,
        block: Expr,
        vectors: int,
        codes: Rows,
        rows: Sequence[Expr | int],
    ) -> None:
        """Add the products of rows of codes and one tile to ``acc[row * vectors + vector]``.

        Args:
            acc: accumulators.
            panel: the local buffer.
            block: first register of columns.
            vectors: registers in the tile.
            codes: rows of K codes.
            rows: which of them.
        """
        start, width, lanes = self.start(block), vectors * self.isa.lanes, self.isa.lanes

        def step(group: Expr | int, values: Sequence[Expr]) -> None:
            base = start + group * width
            cells = [T.bind(load(panel, base + vector * lanes, lanes)) for vector in range(vectors)]
            for row, value in enumerate(values):
                for vector, cell in enumerate(cells):
                    index = row * vectors + vector
                    acc[index] = self.multiply_add(acc[index], value, cell)

        def chunk(index: Expr | int, count: int) -> None:
            """``count`` groups of one chunk."""
            if not self.isa.dot:
                with T.serial(0, count) as code:
                    at = index * CHUNK + code
                    step(at, [splat(codes.buffer[codes.at(row, at)], lanes) for row in rows])
                return
            first = index * (CHUNK // 4)
            if self.isa.dot == "sdot":  # multiplies by one lane of a register
                registers = [T.bind(codes.words(row, first, 4)) for row in rows]
                for group in range(count):
                    lane = [int32(group)] * lanes
                    step(first + group, [tirx.Shuffle([word], lane) for word in registers])
                return
            for group in range(count):
                words = [codes.words(row, first + group, 1) for row in rows]
                step(first + group, [T.bind(splat(word, lanes)) for word in words])

        whole, rest = divmod(self.groups, CHUNK // self.group)
        if whole == 1:
            chunk(0, CHUNK // self.group)
        elif whole:
            with T.serial(0, whole) as index:
                chunk(index, CHUNK // self.group)
        if rest:
            chunk(whole, rest)

    def multiply_add(self, acc: Expr, word: Expr, cell: Expr) -> Expr:
        """``acc`` plus the product of a word of codes, in every lane, and a register of columns."""
        lanes = self.isa.lanes
        if self.isa.dot == "sdot":
            return tirx.call_llvm_pure_intrin(
                "int32x4",
                "llvm.aarch64.neon.sdot.v4i32.v16i8",
                acc,
                T.reinterpret("int8x16", cell),
                T.reinterpret("int8x16", word),
            )
        if self.isa.dot == "vpdpbusd":
            return tirx.call_llvm_pure_intrin(
                f"int32x{lanes}",
                "llvm.x86.avx512.vpdpbusd.512",
                acc,
                T.reinterpret(f"uint8x{lanes * 4}", cell),
                T.reinterpret(f"int8x{lanes * 4}", word),
            )
        return acc + widen(word, "int32") * widen(cell, "int32")

    def add_sums(self, acc: Accumulators, panel: Buffer, block: Expr, vectors: int) -> None:
        """Add the sums of the columns of one tile to ``acc``; K * ``offset`` is included."""
        one = splat(int32(0x01010101) if self.isa.dot else tirx.const(1, "int16"), self.isa.lanes)
        width = vectors * self.isa.lanes
        with T.serial(0, self.groups) as group:
            for vector in range(vectors):
                at = self.start(block) + group * width + vector * self.isa.lanes
                cell = load(panel, at, self.isa.lanes)
                acc[vector] = self.multiply_add(acc[vector], one, cell)


def word_of(source: Buffer, code: Expr, valid: int) -> Expr:
    """``valid`` int8 codes as the low bytes of an int32; never reads past them."""
    if valid == 4:
        return T.reinterpret("int32", load(source, code, 4))
    word: Expr = int32(0)
    for position in range(valid):
        byte = source[code + position].astype("int32") & int32(0xFF)
        word = word | (byte << int32(8 * position))
    return word


def pieces(extent: int) -> list[tuple[int, int]]:
    """Starts and widths of the vectors of 16, 8, 4 and 1 elements that cover ``extent``."""
    result, start = [], 0
    for width in (16, 8, 4, 1):
        while extent - start >= width:
            result.append((start, width))
            start += width
    return result


def store_lanes(out: Buffer, offset: Expr, value: Expr, lanes: int, valid: int) -> None:
    """Store the first ``valid`` lanes of a vector."""
    if valid == lanes:
        store(out, offset, value, lanes)
        return
    value = T.bind(value)
    for start, width in pieces(valid):
        part = tirx.Shuffle([value], [int32(lane) for lane in range(start, start + width)])
        store(out, offset + start, part, width)


def _zip(a: Expr, b: Expr, count: int) -> Expr:
    """Lanes of ``a`` and ``b`` in turn."""
    order = [int32(lane // 2 + (count if lane % 2 else 0)) for lane in range(2 * count)]
    return tirx.Shuffle([a, b], order)
