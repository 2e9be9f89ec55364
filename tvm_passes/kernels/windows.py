"""Loops over windows that slide over a map: what neighbours share is loaded once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from tvm_passes.kernels.builder import int32, lanes_of, load, store
from tvm_passes.kernels.parallel import tasks

Vectors = Sequence[Expr]


@dataclass(frozen=True)
class Axis:
    """Windows along one axis.

    Attributes:
        count: windows, that is outputs.
        taps: sources of a window.
        stride: distance of two windows.
        dilation: distance of two sources in a window.
    """

    count: int
    taps: int
    stride: int
    dilation: int = 1

    def source(self, output: int, tap: int) -> int:
        """Position of one source."""
        return output * self.stride + tap * self.dilation

    def sources(self, outputs: int) -> list[int]:
        """Sources of the first ``outputs`` windows, ascending."""
        pairs = ((output, tap) for output in range(outputs) for tap in range(self.taps))
        return sorted({self.source(*pair) for pair in pairs})

    def shared(self, outputs: int) -> list[int]:
        """Those of them that the ``outputs`` windows before have as well."""
        sources = self.sources(outputs)
        return [source for source in sources if source + outputs * self.stride in sources]


class Held:
    """A vector in a local buffer, which LLVM turns into registers.

    TVM inlines bound integers, vectors too, into every use; it does not look into buffers.
    """

    def __init__(self, vector: Expr) -> None:
        """Hold ``vector``."""
        self.lanes = lanes_of(vector)
        self.buffer = T.alloc_buffer((self.lanes,), str(vector.ty.dtype).partition("x")[0])
        self.put(vector)

    def put(self, vector: Expr) -> None:
        """Replace it."""
        store(self.buffer, 0, vector, self.lanes)

    def get(self) -> Expr:
        """What it is where the result is used."""
        return load(self.buffer, 0, self.lanes)


def tiled(extent: int, tile: int, emit: Callable[[Expr, int], None], work: int = 0) -> None:
    """Cover ``extent`` by whole tiles in a loop, and a smaller one at the end.

    Args:
        extent: number of elements.
        tile: elements of a tile.
        emit: emits a tile, given its first element and their number.
        work: of one element, as ``parallel.tasks`` counts it; 0 in loops inside of others.
    """
    whole, rest = divmod(extent, tile)
    if whole:
        tasks(whole, work * tile, lambda index: emit(index * tile, tile))
    if rest:
        emit(int32(whole * tile), rest)


def slide(
    axis: Axis,
    tile: int,
    read: Callable[[Expr | int], Vectors],
    emit: Callable[[Expr, Iterator[list[Vectors]]], None],
) -> None:
    """All windows of an axis, tile by tile; sources are kept in registers while they are needed.

    Args:
        axis: the windows.
        tile: windows that the loop advances by.
        read: emits what is needed of one source, given its position.
        emit: emits a tile, given its first window and the sources of each of its windows, which
            are read when they are asked for.
    """
    kept = {source: list(map(Held, read(source))) for source in axis.shared(tile)}

    def body(start: Expr, windows: int) -> None:
        known: dict[int, Vectors] = {
            source: [T.bind(vector.get()) for vector in vectors] for source, vectors in kept.items()
        }

        def at(source: int) -> Vectors:
            if source not in known:
                known[source] = read(start * axis.stride + source)
            return known[source]

        emit(
            start,
            ([at(axis.source(w, tap)) for tap in range(axis.taps)] for w in range(windows)),
        )
        if windows == tile:
            for source, vectors in kept.items():
                for vector, new in zip(vectors, at(source + tile * axis.stride), strict=True):
                    vector.put(new)

    tiled(axis.count, tile, body)


def block_starts(channels: int, lanes: int) -> list[int]:
    """First channels of blocks of ``lanes``; the last one overlaps the one before."""
    last = max(channels - lanes, 0)
    return [min(start, last) for start in range(0, channels, lanes)]


def block_lanes(channels: int, most: int, least: int) -> int:
    """Lanes of a block: as many as leave no more than an eighth of all lanes idle.

    Args:
        channels: channels to cover.
        most: power of two.
        least: power of two that is taken in any case.
    """
    lanes = most
    while lanes > least and 8 * lanes * len(block_starts(channels, lanes)) > 9 * channels:
        lanes //= 2
    return lanes


def channel_lanes(channels: int, most: int) -> int:
    """Lanes of a block of at most ``most`` channels, never more than there are."""
    widest = 1 << channels.bit_length() - 1
    lanes = block_lanes(channels, min(most, widest), min(8, widest))
    return 1 if lanes == 2 else lanes  # TVMScript cannot read vectors of two lanes
