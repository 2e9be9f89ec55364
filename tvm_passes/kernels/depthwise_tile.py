"""Geometry of the depthwise kernel: which input meets which tap, and how the work is tiled.

With a four-way dot product, up to four input rows are interleaved byte by byte: one instruction
then multiplies a column of taps. Interleaved columns serve every output column and row that needs
them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tvm_passes.kernels.isa import Isa

DOT, MULTIPLY = "dot", "multiply"
SLOTS = 4  # bytes of one dot product


@dataclass(frozen=True)
class Window:
    """Geometry of a depthwise convolution of a padded NHWC map.

    Attributes:
        rows: output rows.
        columns: output columns.
        channels: channels.
        width: input columns.
        taps: rows, columns of the kernel.
        strides: rows, columns.
        dilation: rows, columns.
    """

    rows: int
    columns: int
    channels: int
    width: int
    taps: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]

    def input_columns(self, columns: int) -> list[int]:
        """Input columns of ``columns`` output columns, relative to the first one's first."""
        return sorted(
            {
                column * self.strides[1] + tap * self.dilation[1]
                for column in range(columns)
                for tap in range(self.taps[1])
            }
        )

    def kept_columns(self, columns: int) -> list[int]:
        """Those of them that the ``columns`` output columns before have loaded already."""
        needed = self.input_columns(columns)
        return [column for column in needed if column + columns * self.strides[1] in needed]

    def input_row(self, row: int, tap: int) -> int:
        """Input row of one tap of an output row, relative to the first output row's first."""
        return row * self.strides[0] + tap * self.dilation[0]

    def input_rows(self, rows: int) -> list[int]:
        """All of them."""
        return sorted({self.input_row(r, i) for r in range(rows) for i in range(self.taps[0])})


@dataclass(frozen=True)
class Term:
    """One dot product per column of taps.

    Attributes:
        row: output row.
        group: index of the group of input rows.
        taps: row of the kernel that meets each of the four bytes, or None.
    """

    row: int
    group: int
    taps: tuple[int | None, ...]


@dataclass(frozen=True)
class RowPlan:
    """How the input rows of a tile are interleaved, and which output rows they make.

    A plan of fewer rows begins like one of more, so that the packed weights of a tile also serve a
    lower one.

    Attributes:
        window: the convolution.
        rows: output rows of the tile.
    """

    window: Window
    rows: int

    @cached_property
    def groups(self) -> list[list[int]]:
        """Input rows that are interleaved with each other."""
        window = self.window
        sets = [
            [window.input_row(row, tap) for tap in range(window.taps[0])]
            for row in range(self.rows)
        ]
        if self._shared:  # neighbours have most rows in common
            sets = [window.input_rows(self.rows)]
        return [rows[i : i + SLOTS] for rows in sets for i in range(0, len(rows), SLOTS)]

    @cached_property
    def terms(self) -> list[Term]:
        """The dot products, output row by output row."""
        window, each = self.window, -(-self.window.taps[0] // SLOTS)
        terms = []
        for row in range(self.rows):
            mine = {window.input_row(row, tap): tap for tap in range(window.taps[0])}
            for index, group in enumerate(self.groups):
                own = self._shared or index // each == row
                if own and mine.keys() & set(group):
                    taps = [mine.get(source) for source in group]
                    padding = [None] * (SLOTS - len(taps))
                    terms.append(Term(row, index, (*taps, *padding)))
        return terms

    @property
    def _shared(self) -> bool:
        return self.window.strides[0] == self.window.dilation[0] == 1


@dataclass(frozen=True)
class DepthwiseSchedule:
    """How a depthwise convolution is tiled.

    Attributes:
        method: "dot", or "multiply" for widening multiplications tap by tap.
        rows: output rows of a tile.
        columns: output columns that the inner loop advances by.
        vectors: int32 registers of channels in a tile.
    """

    method: str
    rows: int
    columns: int
    vectors: int


def schedules(window: Window, dot: bool, isa: Isa) -> Iterator[DepthwiseSchedule]:
    """All schedules worth trying.

    Args:
        window: the convolution.
        dot: whether the dot product takes the input.
        isa: instruction set.
    """
    most = min(4, max(1, window.channels // isa.lanes))
    method = DOT if dot else MULTIPLY
    for vectors in range(1, most + 1):
        for rows in range(1, min(4, window.rows) + 1):
            for columns in range(1, min(8, window.columns) + 1):
                yield DepthwiseSchedule(method, rows, columns, vectors)


def default_schedule(window: Window, dot: bool, isa: Isa) -> DepthwiseSchedule:
    """A good schedule: weights, kept columns and accumulators stay in registers.

    Args:
        window: the convolution.
        dot: whether the dot product takes the input.
        isa: instruction set.
    """
    shared = window.strides[0] == 1  # neighbouring output rows share input
    rows = min(2 if shared else 1, window.rows)
    if not dot:
        return DepthwiseSchedule(MULTIPLY, 1, min(2, window.columns), _vectors(window, isa, 16))
    if isa.arch == "x86":
        return DepthwiseSchedule(DOT, rows, min(4, window.columns), _vectors(window, isa, 32))
    few = not shared and window.taps[0] <= SLOTS and window.taps[1] <= 3
    wide = _vectors(window, isa, 16 if few else 8)
    return DepthwiseSchedule(DOT, rows, min(2, window.columns), wide)


def _vectors(window: Window, isa: Isa, most: int) -> int:
    """Registers of at most ``most`` channels that leave no more than an eighth of the lanes idle.

    Interleaving pays from 8 channels on.
    """
    least = isa.lanes if window.channels < 8 else max(8, isa.lanes)
    lanes = max(most, least)
    while lanes > least:
        if 8 * lanes * len(block_starts(window.channels, lanes)) <= 9 * window.channels:
            break
        lanes //= 2
    return lanes // isa.lanes


def block_starts(channels: int, lanes: int) -> list[int]:
    """First channels of blocks of ``lanes``; the last one overlaps the one before."""
    last = max(channels - lanes, 0)
    return [min(start, last) for start in range(0, channels, lanes)]
