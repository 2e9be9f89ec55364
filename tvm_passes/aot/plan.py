"""Static memory plan: offsets in one arena for tensors whose lifetimes are known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

ALIGNMENT = 64  # bytes; kernels load whole cache lines and fault on less on x86


@dataclass(frozen=True)
class Lifetime:
    """A buffer and the layers during which its content matters.

    Attributes:
        nbytes: size in bytes.
        first: index of the layer that writes it.
        last: index of the last layer that reads it (inclusive, >= first).
    """

    nbytes: int
    first: int
    last: int

    def overlaps(self, other: "Lifetime") -> bool:
        """Whether both buffers are alive in some layer."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """Where each buffer lies.

    Attributes:
        offsets: bytes from the start of the arena, multiples of 64, one per buffer.
        arena_bytes: size of the arena.
        live_bytes: the largest sum of (64-byte rounded) sizes alive in one layer, the lower bound
            of any plan.
    """

    offsets: tuple[int, ...]
    arena_bytes: int
    live_bytes: int


def align(nbytes: int) -> int:
    """``nbytes`` rounded up to the alignment."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def plan_memory(buffers: Sequence[Lifetime]) -> MemoryPlan:
    """Place all buffers so that no two that live at once share a byte.

    Greedy best fit in three orders, of which the smallest arena wins: by size, by time of writing,
    and by size times lifetime.

    Source: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference" (2020),
    section 5 (offset calculation, greedy by size).
    """
    orders: tuple[Callable[[Lifetime], tuple[int, ...]], ...] = (
        lambda buffer: (-buffer.nbytes, buffer.first),
        lambda buffer: (buffer.first, -buffer.nbytes),
        lambda buffer: (-buffer.nbytes * (buffer.last - buffer.first + 1), buffer.first),
    )
    plans = (_place(buffers, order) for order in orders)
    arena_bytes, offsets = min(plans, key=lambda plan: plan[0])
    return MemoryPlan(offsets, arena_bytes, _live_bytes(buffers))


def _place(
    buffers: Sequence[Lifetime], order: Callable[[Lifetime], tuple[int, ...]]
) -> tuple[int, tuple[int, ...]]:
    """Arena size and offsets when buffers are placed in ``order``."""
    offsets: dict[int, int] = {}
    for index in sorted(range(len(buffers)), key=lambda index: order(buffers[index])):
        taken = sorted(
            (offset, offset + align(buffers[other].nbytes))
            for other, offset in offsets.items()
            if buffers[other].overlaps(buffers[index])
        )
        offsets[index] = _best_gap(taken, align(buffers[index].nbytes))
    ends = (offset + align(buffers[index].nbytes) for index, offset in offsets.items())
    return max(ends, default=0), tuple(offsets[index] for index in range(len(buffers)))


def _best_gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    """Start of the smallest gap between sorted intervals that holds ``size``, or their end."""
    end, best, best_gap = 0, None, None
    for start, stop in taken:
        gap = start - end
        if gap >= size and (best_gap is None or gap < best_gap):
            best, best_gap = end, gap
        end = max(end, stop)
    return end if best is None else best


def _live_bytes(buffers: Sequence[Lifetime]) -> int:
    layers = {buffer.first for buffer in buffers}  # the sum can only grow where a buffer starts
    return max(
        (
            sum(align(buffer.nbytes) for buffer in buffers if buffer.first <= layer <= buffer.last)
            for layer in layers
        ),
        default=0,
    )
