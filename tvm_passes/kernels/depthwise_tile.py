"""Geometry of the depthwise kernel: which input meets which tap, and how the work is tiled.

With a four-way dot product, up to four input rows are interleaved byte by byte: one instruction
then multiplies a column of taps. Interleaved columns serve every output column and row that needs
them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tvm_passes.kernels.dot import WORD
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.windows import Axis, block_lanes

DOT, MULTIPLY = "dot", "multiply"


@dataclass(frozen=True)
class Window:
    """Geometry of a depthwise convolution of a padded NHWC map.

    Attributes:
        rows: windows along the rows.
        columns: windows along the columns.
        channels: channels.
        width: input columns.
    """

    rows: Axis
    columns: Axis
    channels: int
    width: int


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
        axis = self.window.rows
        sets = [[axis.source(row, tap) for tap in range(axis.taps)] for row in range(self.rows)]
        if self._shared:  # neighbours have most rows in common
            sets = [axis.sources(self.rows)]
        return [rows[i : i + WORD] for rows in sets for i in range(0, len(rows), WORD)]

    @cached_property
    def terms(self) -> list[Term]:
        """The dot products, output row by output row."""
        axis, each = self.window.rows, -(-self.window.rows.taps // WORD)
        terms = []
        for row in range(self.rows):
            mine = {axis.source(row, tap): tap for tap in range(axis.taps)}
            for index, group in enumerate(self.groups):
                own = self._shared or index // each == row
                if own and mine.keys() & set(group):
                    taps = [mine.get(source) for source in group]
                    padding = [None] * (WORD - len(taps))
                    terms.append(Term(row, index, (*taps, *padding)))
        return terms

    @property
    def _shared(self) -> bool:
        return self.window.rows.stride == self.window.rows.dilation == 1


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
    """All schedules worth trying, the default one first.

    Args:
        window: the convolution.
        dot: whether the dot product takes the input.
        isa: instruction set.
    """
    default = default_schedule(window, dot, isa)
    yield default
    most = min(4, max(1, window.channels // isa.lanes))
    method = DOT if dot else MULTIPLY
    for vectors in range(1, most + 1):
        for rows in range(1, min(4, window.rows.count) + 1):
            for columns in range(1, min(8, window.columns.count) + 1):
                schedule = DepthwiseSchedule(method, rows, columns, vectors)
                if schedule != default:
                    yield schedule


def default_schedule(window: Window, dot: bool, isa: Isa) -> DepthwiseSchedule:
    """A good schedule: weights, kept columns and accumulators stay in registers.

    Args:
        window: the convolution.
        dot: whether the dot product takes the input.
        isa: instruction set.
    """
    shared = window.rows.stride == 1  # neighbouring output rows share input
    rows = min(2 if shared else 1, window.rows.count)
    columns = min(4 if dot and isa.arch == "x86" else 2, window.columns.count)

    def vectors(most: int) -> int:
        """Registers of ``most`` channels or fewer; interleaving pays from 8 on."""
        least = isa.lanes if window.channels < 8 else max(8, isa.lanes)
        return block_lanes(window.channels, max(most, least), least) // isa.lanes

    if not dot:
        return DepthwiseSchedule(MULTIPLY, 1, columns, vectors(16))
    if isa.arch == "x86":
        return DepthwiseSchedule(DOT, rows, columns, vectors(32))
    few = not shared and window.rows.taps <= WORD and window.columns.taps <= 3
    return DepthwiseSchedule(DOT, rows, columns, vectors(16 if few else 8))
