"""The micro-kernel of products with a ``Panel``: rows of codes times one tile of columns."""

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import Accumulators, int32, load, splat
from tvm_passes.kernels.fixed_point import widen
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.panel import CHUNK, WORD, Panel, Rows

ONES = 0x01010101


def multiply(
    acc: Accumulators,
    panel: Panel,
    packed: Buffer,
    tile: tuple[Expr, int],
    codes: Rows,
    rows: Sequence[Expr | int],
) -> None:
    """Add the products of rows of codes and one tile to ``acc[row * vectors + vector]``.

    Args:
        acc: accumulators.
        panel: geometry of the other operand.
        packed: its buffer.
        tile: first register of columns, and number of registers.
        codes: rows of K codes.
        rows: which of them; for ``smmla`` pairs that begin with an even one.
    """
    if panel.matrix:
        _exchange(acc, len(rows), tile[1])
        _matrix_products(acc, panel, packed, tile, codes, rows)
        _exchange(acc, len(rows), tile[1])
    elif panel.isa.dot:
        _dot_products(acc, panel, packed, tile, codes, rows)
    else:
        _plain_products(acc, panel, packed, tile, codes, rows)


def _dot_products(
    acc: Accumulators,
    panel: Panel,
    packed: Buffer,
    tile: tuple[Expr, int],
    codes: Rows,
    rows: Sequence[Expr | int],
) -> None:
    """Chunks of four words; NEON multiplies by one lane of a register, x86 by a broadcast word."""
    lanes = panel.isa.lanes

    def chunk(index: Expr | int, count: int) -> None:
        registers = [T.bind(codes.words(row, index * CHUNK, 4)) for row in rows]
        for group in range(count):
            if panel.isa.dot == "sdot":
                order = [int32(group)] * lanes
                words = [tirx.Shuffle([register], order) for register in registers]
            else:
                column = index * CHUNK + group * WORD
                words = [T.bind(splat(codes.words(row, column, 1), lanes)) for row in rows]
            _step(acc, panel, packed, tile, index * (CHUNK // WORD) + group, words)

    whole, rest = divmod(panel.groups, CHUNK // WORD)
    if whole == 1:
        chunk(0, CHUNK // WORD)
    elif whole:
        with T.serial(0, whole) as index:
            chunk(index, CHUNK // WORD)
    if rest:
        chunk(whole, rest)


def _plain_products(
    acc: Accumulators,
    panel: Panel,
    packed: Buffer,
    tile: tuple[Expr, int],
    codes: Rows,
    rows: Sequence[Expr | int],
) -> None:
    with T.serial(0, panel.groups) as code:
        words = [splat(codes.buffer[codes.at(row, code)], panel.isa.lanes) for row in rows]
        _step(acc, panel, packed, tile, code, [T.bind(word) for word in words])


def _step(
    acc: Accumulators,
    panel: Panel,
    packed: Buffer,
    tile: tuple[Expr, int],
    group: Expr | int,
    words: Sequence[Expr],
) -> None:
    """One group of every row times one group of every column."""
    block, vectors = tile
    lanes = panel.isa.lanes
    cells = [
        T.bind(load(packed, panel.at(block, group, vectors, vector * lanes), lanes))
        for vector in range(vectors)
    ]
    for row, word in enumerate(words):
        for vector, cell in enumerate(cells):
            index = row * vectors + vector
            acc[index] = _multiply_add(acc[index], word, cell, panel.isa)


def _multiply_add(acc: Expr, word: Expr, cell: Expr, isa: Isa) -> Expr:
    """``acc`` plus the product of a word of codes, in every lane, and a register of columns."""
    lanes = isa.lanes
    if isa.dot == "sdot":
        return tirx.call_llvm_pure_intrin(
            "int32x4",
            "llvm.aarch64.neon.sdot.v4i32.v16i8",
            acc,
            T.reinterpret("int8x16", cell),
            T.reinterpret("int8x16", word),
        )
    if isa.dot == "vpdpbusd":
        return tirx.call_llvm_pure_intrin(
            f"int32x{lanes}",
            "llvm.x86.avx512.vpdpbusd.512",
            acc,
            T.reinterpret(f"uint8x{lanes * WORD}", cell),
            T.reinterpret(f"int8x{lanes * WORD}", word),
        )
    return acc + widen(word, "int32") * widen(cell, "int32")


def _matrix_products(
    acc: Accumulators,
    panel: Panel,
    packed: Buffer,
    tile: tuple[Expr, int],
    codes: Rows,
    rows: Sequence[Expr | int],
) -> None:
    """Two rows times two columns an instruction; a register of columns is two such operands."""
    block, vectors = tile

    def step(group: Expr | int) -> None:
        pairs = [T.bind(codes.words(row, group * panel.group, 4)) for row in rows[::2]]
        for column in range(0, vectors * panel.isa.lanes, 2):
            cell = T.bind(load(packed, panel.at(block, group, vectors, column), 4))
            vector, half = divmod(column // 2, 2)
            for index, pair in enumerate(pairs):
                at = (2 * index + half) * vectors + vector
                acc[at] = tirx.call_llvm_pure_intrin(
                    "int32x4",
                    "llvm.aarch64.neon.smmla.v4i32.v16i8",
                    acc[at],
                    T.reinterpret("int8x16", pair),
                    T.reinterpret("int8x16", cell),
                )

    looped = panel.groups // 2 * 2 if panel.groups > 2 else 0
    if looped:
        with T.serial(0, looped // 2) as index:
            step(index * 2)
            step(index * 2 + 1)
    for group in range(looped, panel.groups):
        step(group)


def _exchange(acc: Accumulators, rows: int, vectors: int) -> None:
    """From two rows of four columns to two rows of two, twice, and back."""
    for row in range(0, rows, 2):
        for vector in range(vectors):
            first, second = row * vectors + vector, (row + 1) * vectors + vector
            both = [T.bind(acc[first]), T.bind(acc[second])]
            acc[first] = tirx.Shuffle(both, [int32(lane) for lane in (0, 1, 4, 5)])
            acc[second] = tirx.Shuffle(both, [int32(lane) for lane in (2, 3, 6, 7)])


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
