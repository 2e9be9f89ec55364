"""Loops whose iterations may run on several threads."""

from collections.abc import Callable

from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

# A handful of microseconds on one core of a phone. Threads that wait awake cost about 0.2 of one,
# and data that lie in the cache of another core cost more.
WORTHWHILE = 1 << 17
PER_BYTE = 4


def tasks(extent: int, work: int, body: Callable[[Expr], None]) -> None:
    """A loop over independent iterations, in parallel where that pays.

    Every thread takes one contiguous share, of ``extent`` by the number of threads, rounded up: the
    shares are even where ``extent`` is a multiple of 12, or large. Scalars and vectors that were
    bound before the loop are copied to the threads, but a buffer that was allocated before it is
    one for all of them: allocate scratch memory in ``body``. Parallel loops must not nest.

    Args:
        extent: number of iterations.
        work: multiply-accumulates per iteration; where there are none, ``PER_BYTE`` per byte read
            or written.
        body: emits one iteration, given its index (int32).
    """
    parallel = extent > 1 and extent * work >= WORTHWHILE
    with (T.parallel if parallel else T.serial)(0, extent) as index:
        body(index)
