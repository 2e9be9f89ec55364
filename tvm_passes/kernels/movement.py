"""Kernels that only move data: strided copies of whole rows, or of blocks turned in registers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import build_kernel, int32, join, lane_slice, load, splat, store
from tvm_passes.kernels.loops import nested, vector_loop
from tvm_passes.kernels.registry import Kernel
from tvm_passes.ops.base import TensorSpec

REGISTER = 16  # bytes; LLVM joins neighbours where registers are wider
STEP = 128  # bytes per step of a long row


@dataclass(frozen=True)
class Copy:
    """A box of elements, read and written at strides of their own.

    Attributes:
        extents: of the box.
        reads: strides in the source.
        writes: strides in the output.
        first_read: offset of the first element in the source.
        first_write: its offset in the output.
    """

    extents: tuple[int, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    first_read: int = 0
    first_write: int = 0

    def simplified(self) -> "Copy":
        """The same copy with as few axes as it needs, at least one."""
        axes: list[tuple[int, int, int]] = []
        for extent, read, write in zip(self.extents, self.reads, self.writes, strict=True):
            if extent == 1:
                continue
            if axes and axes[-1][1:] == (read * extent, write * extent):
                extent *= axes.pop()[0]
            axes.append((extent, read, write))
        extents, reads, writes = zip(*(axes or [(1, 1, 1)]), strict=True)
        return Copy(extents, reads, writes, self.first_read, self.first_write)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor in elements."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def copy_kernel(copies: Sequence[Copy], specs: Sequence[TensorSpec], out: TensorSpec) -> Kernel:
    """One copy per argument, together covering the output."""
    with build_kernel([*specs, out]) as builder:
        *inputs, out_buf = builder.buffers
        for copy, source in zip(copies, inputs, strict=True):
            emit_copy(copy, source, out_buf)
    return Kernel(builder.func)


def emit_copy(copy: Copy, source: Buffer, out: Buffer) -> None:
    """Copy a box from ``source`` to ``out``, which have one dtype and are flat."""
    copy = copy.simplified()
    if copy.reads[-1] == copy.writes[-1] == 1:
        _copy_rows(copy, source, out)
    elif copy.writes[-1] == 1 and 1 in copy.reads:
        _copy_turned(copy, source, out)
    else:
        _copy_elements(copy, source, out)


def emit_fill(
    extents: Sequence[int],
    strides: Sequence[int],
    first: int,
    length: int,
    value: Expr,
    out: Buffer,
) -> None:
    """Set ``length`` elements to a scalar at every position of a grid that starts at ``first``."""

    def row(indices: Sequence[Expr]) -> None:
        start = _offset(first, indices, strides)

        def emit(offset: Expr, lanes: int) -> None:
            store(out, start + offset, splat(value, lanes), lanes)

        _cover(length, _lanes(out, STEP), _lanes(out, REGISTER), emit)

    if length:
        nested(extents, row)


def _lanes(buffer: Buffer, nbytes: int) -> int:
    return nbytes // np.dtype(str(buffer.dtype)).itemsize


def _offset(first: int, indices: Sequence[Expr], strides: Sequence[int]) -> Expr:
    offset: Expr = int32(first)
    for index, stride in zip(indices, strides, strict=True):
        offset = offset + index * stride
    return offset


def _cover(extent: int, step: int, register: int, emit: Callable[[Expr, int], None]) -> None:
    """Cover a row by vectors; the last one may overlap the one before, as nothing is computed."""
    whole = extent // register * register
    vector_loop(whole, step, emit)
    if whole and whole < extent:
        emit(int32(extent - register), register)
    elif not whole:
        width = 1 << (extent.bit_length() - 1)
        if width < 4:
            width = 1  # TVMScript prints vectors of two lanes, but cannot read them
        for start in range(0, extent - width + 1, width):
            emit(int32(start), width)
        if extent % width:
            emit(int32(extent - width), width)


def _copy_rows(copy: Copy, source: Buffer, out: Buffer) -> None:
    def row(indices: Sequence[Expr]) -> None:
        read = _offset(copy.first_read, indices, copy.reads[:-1])
        write = _offset(copy.first_write, indices, copy.writes[:-1])

        def emit(offset: Expr, lanes: int) -> None:
            # in two halves: LLVM turns a loop around one copy into a call of memcpy
            half = lanes if lanes <= _lanes(out, REGISTER) else lanes // 2
            for part in range(0, lanes, half):
                values = load(source, read + offset + part, half)
                store(out, write + offset + part, values, half)

        _cover(copy.extents[-1], _lanes(out, STEP), _lanes(out, REGISTER), emit)

    nested(copy.extents[:-1], row)


def _copy_elements(copy: Copy, source: Buffer, out: Buffer) -> None:
    def element(indices: Sequence[Expr]) -> None:
        read = _offset(copy.first_read, indices, copy.reads)
        write = _offset(copy.first_write, indices, copy.writes)
        store(out, write, load(source, read, 1), 1)

    nested(copy.extents, element)


def _copy_turned(copy: Copy, source: Buffer, out: Buffer) -> None:
    """Blocks of the two axes that are innermost in the source and in the output.

    A block is read as rows of ``wide`` elements, ``tall`` of them, turned in registers, and written
    as rows of ``tall``. Blocks at the ends overlap their neighbours.
    """
    across, down = copy.reads.index(1), len(copy.extents) - 1
    lanes = _lanes(out, REGISTER)
    wide, tall = (min(lanes, _power_of_two(copy.extents[axis])) for axis in (across, down))
    if min(wide, tall) < 4:
        return _copy_elements(copy, source, out)
    blocks = list(copy.extents)
    blocks[across], blocks[down] = -(-blocks[across] // wide), -(-blocks[down] // tall)

    def block(indices: Sequence[Expr]) -> None:
        first = list(indices)
        for axis, size in ((across, wide), (down, tall)):
            first[axis] = tirx.min(first[axis] * size, int32(copy.extents[axis] - size))
        read = T.bind(_offset(copy.first_read, first, copy.reads))
        write = T.bind(_offset(copy.first_write, first, copy.writes))
        rows = [load(source, read + row * copy.reads[down], wide) for row in range(tall)]
        for column, values in enumerate(_turned(rows, wide)):
            store(out, write + column * copy.writes[across], values, tall)

    nested(blocks, block)


def _power_of_two(extent: int) -> int:
    """The greatest one that is not above ``extent``."""
    return 1 << (extent.bit_length() - 1)


def _turned(rows: list[Expr], wide: int) -> list[Expr]:
    """The columns of a block of vectors, by perfect shuffles of its first and second half."""
    tall = len(rows)
    mix = [int32(lane + part) for lane in range(wide) for part in (0, wide)]
    for _ in range(tall.bit_length() - 1):
        pairs = zip(rows[: tall // 2], rows[tall // 2 :], strict=True)
        rows = [
            T.bind(tirx.Shuffle([first, second], half))
            for first, second in pairs
            for half in (mix[:wide], mix[wide:])
        ]
    # now the columns lie one after another, whatever the length of a vector
    if tall <= wide:
        return [lane_slice(row, start, tall) for row in rows for start in range(0, wide, tall)]
    each = tall // wide
    return [join(rows[start : start + each]) for start in range(0, tall, each)]
