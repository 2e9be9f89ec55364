"""Loop nests of the vector kernels: covering an extent by vectors, and broadcasting operands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from tvm.ir import Expr
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import build_kernel, int32, load, splat, store
from tvm_passes.kernels.parallel import PER_BYTE, tasks
from tvm_passes.kernels.registry import Kernel
from tvm_passes.ops.base import TensorSpec


def vector_loop(extent: int, lanes: int, emit: Callable[[Expr, int], None], work: int = 0) -> None:
    """Cover ``extent`` by whole vectors in a loop, and what is left by ever narrower ones.

    Every element is covered once. ``emit`` gets the first element and the number of lanes. With
    ``work`` per element (see ``tasks``) the loop may be parallel.
    """
    if extent // lanes:
        tasks(extent // lanes, work * lanes, lambda index: emit(index * lanes, lanes))
    done = extent // lanes * lanes
    for start, width in pieces(extent - done, lanes):
        emit(int32(done + start), width)


def pieces(extent: int, widest: int) -> list[tuple[int, int]]:
    """Starts and widths of the vectors that cover ``extent``, wide ones first.

    Widths are powers of two up to ``widest``, but not two: TVMScript prints such vectors, and
    cannot read them.
    """
    return [
        (start + part, 1 if width == 2 else width)
        for start, width in powers(extent, widest)
        for part in range(width if width == 2 else 1)
    ]


def powers(extent: int, greatest: int) -> list[tuple[int, int]]:
    """Starts and sizes of groups that cover ``extent``, powers of two up to ``greatest``."""
    groups, start = [], 0
    while start < extent:
        size = 1 << min(extent - start, greatest).bit_length() - 1
        groups.append((start, size))
        start += size
    return groups


@dataclass(frozen=True)
class Nest:
    """Loops of a broadcast operation: extents, and every operand's strides (0 = broadcast)."""

    extents: list[int]
    strides: list[list[int]]


def collapse(out: Sequence[int], shapes: Sequence[Sequence[int]]) -> Nest:
    """Merge adjacent axes that all operands broadcast alike."""
    padded = [(1,) * (len(out) - len(shape)) + tuple(shape) for shape in shapes]
    extents: list[int] = []
    patterns: list[tuple[bool, ...]] = []
    for axis, extent in enumerate(out):
        pattern = tuple(shape[axis] == extent for shape in padded)
        if extent == 1:
            continue
        if patterns and patterns[-1] == pattern:
            extents[-1] *= extent
        else:
            extents.append(extent)
            patterns.append(pattern)
    if not extents:
        extents, patterns = [1], [(True,) * len(shapes)]
    strides = []
    for operand in range(len(shapes)):
        owned = [e if p[operand] else 1 for e, p in zip(extents, patterns, strict=True)]
        strides.append(
            [
                prod(owned[axis + 1 :]) if pattern[operand] else 0
                for axis, pattern in enumerate(patterns)
            ]
        )
    return Nest(extents, strides)


def elementwise(
    specs: Sequence[TensorSpec],
    out: TensorSpec,
    lanes: int,
    compute: Callable[[Sequence[Expr], Sequence[Buffer]], Expr],
    tables: int = 0,
) -> Kernel:
    """A kernel that computes every output element from the matching elements of its operands.

    Args:
        specs: operands, broadcast like NumPy's, then tables.
        out: the output.
        lanes: lanes of a vector.
        compute: from one vector per operand, in its own dtype, and the flat buffers of the
            tables, to a vector of the output.
        tables: how many of ``specs`` are tables.
    """
    operands = list(specs[: len(specs) - tables])
    nest = collapse(out.shape, [spec.shape for spec in operands])
    work = PER_BYTE * sum(np.dtype(spec.dtype).itemsize for spec in (*operands, out))
    with build_kernel([*specs, out]) as builder:
        *inputs, out_buf = builder.buffers

        def place(strides: Sequence[int], outer: Sequence[Expr]) -> Expr:
            base: Expr = int32(0)
            for stride, index in zip(strides, outer, strict=False):
                base = base + index * stride
            return base

        def body(outer: Sequence[Expr]) -> None:
            base = int32(0)
            for extent, index in zip(nest.extents[1:], outer, strict=True):
                base = (base + index) * extent
            starts = [place(strides[:-1], outer) for strides in nest.strides]

            def emit(offset: Expr, width: int) -> None:
                values = [
                    load(buffer, start + offset, width)
                    if strides[-1]
                    else splat(buffer[start], width)
                    for buffer, start, strides in zip(inputs, starts, nest.strides, strict=False)
                ]
                store(out_buf, base + offset, compute(values, inputs[len(operands) :]), width)

            vector_loop(nest.extents[-1], lanes, emit, 0 if outer else work)

        nested(nest.extents[:-1], body, nest.extents[-1] * work)
    return Kernel(builder.func)


def nested(extents: Sequence[int], body: Callable[[Sequence[Expr]], None], work: int = 0) -> None:
    """Loops over ``extents``, the indices handed to ``body``.

    With ``work`` of one call of ``body`` (see ``tasks``) the outermost loop may be parallel.
    """

    def descend(indices: list[Expr]) -> None:
        depth = len(indices)
        if depth == len(extents):
            body(indices)
            return
        inner = 0 if depth else work * prod(extents[1:])
        tasks(extents[depth], inner, lambda index: descend([*indices, index]))

    descend([])
