"""The micro-kernel of products with a ``Panel``: rows of codes times one tile of columns."""

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import Accumulators, int32, load, splat
from tvm_passes.kernels.dot import WORD, dot, exchange, smmla
from tvm_passes.kernels.fixed_point import widen
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.panel import CHUNK, Panel, Rows

ONES = 0x01010101


@dataclass(frozen=True)
class PanelProduct:
    """Rows of codes times one tile of a panel.

    Attributes:
        acc: what the products are added to, ``acc[row * vectors + vector]``.
        panel: geometry of the other operand.
        packed: its buffer.
        block: first register of the tile's columns.
        vectors: how many registers of columns.
        codes: rows of K codes.
        rows: which of them; for ``smmla`` pairs that begin with an even one.
    """

    acc: Accumulators
    panel: Panel
    packed: Buffer
    block: Expr
    vectors: int
    codes: Rows
    rows: Sequence[Expr | int]

    def emit(self) -> None:
        """Add the products, by the best instruction of the ISA."""
        if self.panel.matrix:
            self._exchange()
            self._matrix_products()
            self._exchange()
        elif self.panel.isa.dot:
            self._dot_products()
        else:
            self._plain_products()

    def _dot_products(self) -> None:
        """Chunks of four words; NEON multiplies by a lane of a register, x86 by a broadcast."""
        lanes, codes = self.panel.isa.lanes, self.codes

        def chunk(index: Expr | int, count: int) -> None:
            registers = [T.bind(codes.words(row, index * CHUNK, 4)) for row in self.rows]
            for group in range(count):
                if self.panel.isa.dot == "sdot":
                    order = [int32(group)] * lanes
                    words = [tirx.Shuffle([register], order) for register in registers]
                else:
                    column = index * CHUNK + group * WORD
                    words = [T.bind(splat(codes.words(row, column, 1), lanes)) for row in self.rows]
                self._step(index * (CHUNK // WORD) + group, words)

        whole, rest = divmod(self.panel.groups, CHUNK // WORD)
        if whole == 1:
            chunk(0, CHUNK // WORD)
        elif whole:
            with T.serial(0, whole) as index:
                chunk(index, CHUNK // WORD)
        if rest:
            chunk(whole, rest)

    def _plain_products(self) -> None:
        codes, lanes = self.codes, self.panel.isa.lanes
        with T.serial(0, self.panel.groups) as code:
            words = [splat(codes.buffer[codes.at(row, code)], lanes) for row in self.rows]
            self._step(code, [T.bind(word) for word in words])

    def _step(self, group: Expr | int, words: Sequence[Expr]) -> None:
        """One group of every row times one group of every column."""
        lanes = self.panel.isa.lanes
        cells = [
            T.bind(load(self.packed, self._at(group, vector * lanes), lanes))
            for vector in range(self.vectors)
        ]
        for row, word in enumerate(words):
            for vector, cell in enumerate(cells):
                index = row * self.vectors + vector
                self.acc[index] = _multiply_add(self.acc[index], word, cell, self.panel.isa)

    def _matrix_products(self) -> None:
        """Two rows times two columns an instruction; a register of columns is two such operands."""
        groups = self.panel.groups
        looped = groups // 2 * 2 if groups > 2 else 0
        if looped:
            with T.serial(0, looped // 2) as index:
                self._matrix_step(index * 2)
                self._matrix_step(index * 2 + 1)
        for group in range(looped, groups):
            self._matrix_step(group)

    def _matrix_step(self, group: Expr | int) -> None:
        column = group * self.panel.group
        pairs = [T.bind(self.codes.words(row, column, 4)) for row in self.rows[::2]]
        for column in range(0, self.vectors * self.panel.isa.lanes, 2):
            cell = T.bind(load(self.packed, self._at(group, column), 4))
            vector, half = divmod(column // 2, 2)
            for index, pair in enumerate(pairs):
                at = (2 * index + half) * self.vectors + vector
                self.acc[at] = smmla(self.acc[at], pair, cell)

    def _exchange(self) -> None:
        for row in range(0, len(self.rows), 2):
            for vector in range(self.vectors):
                first, second = row * self.vectors + vector, (row + 1) * self.vectors + vector
                both = T.bind(self.acc[first]), T.bind(self.acc[second])
                self.acc[first], self.acc[second] = exchange(*both)

    def _at(self, group: Expr | int, column: int) -> Expr:
        return self.panel.at(self.block, group, self.vectors, column)


def _multiply_add(acc: Expr, word: Expr, cell: Expr, isa: Isa) -> Expr:
    """``acc`` plus the product of a word of codes, in every lane, and a register of columns."""
    if isa.dot:
        return dot(acc, cell, word, isa)
    return acc + widen(word, "int32") * widen(cell, "int32")


def add_column_sums(
    acc: Accumulators, panel: Panel, packed: Buffer, tile: tuple[Expr, int]
) -> None:
    """Add the sums of the columns of one tile to ``acc``; ``panel.offset`` is in every code."""
    block, vectors = tile
    lanes, count = panel.isa.lanes, panel.elements
    one = splat(int32(ONES) if panel.isa.dot else tirx.const(1, "int16"), lanes)
    words = Accumulators(vectors * count, lanes)
    for index in range(vectors * count):
        words[index] = splat(int32(0), lanes)
    with T.serial(0, panel.groups) as group:
        for index in range(vectors * count):
            at = panel.at(block, group, vectors, index * lanes // count)
            words[index] = _multiply_add(words[index], one, load(packed, at, lanes), panel.isa)
    for vector in range(vectors):
        total = words[vector * count]
        if count == 2:  # two words of every column are neighbours
            both = [T.bind(total), T.bind(words[vector * count + 1])]
            even, odd = (
                tirx.Shuffle(both, [int32(2 * lane + side) for lane in range(lanes)])
                for side in range(2)
            )
            total = even + odd
        acc[vector] = acc[vector] + total
