"""Geometry of the implicit-GEMM kernel: input access, schedule, packed weights.

The codes of a receptive field lie in contiguous runs. With a four-way dot product a run is cut in
groups of four codes, the last one overlapping the one before where the length is no multiple of
four: weights are zero for codes that were counted already. They are packed
``[panel][run][group][vector][lane][4]``; without a dot product a group is one code.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tvm_passes.kernels.dot import WORD, planes
from tvm_passes.kernels.isa import Isa

BLOCK_BYTES = 16 << 10  # of input that one panel passes over, half of a first-level cache
MOST_ROWS = 12
UNROLLED = 48  # codes of a sum from which on LLVM keeps the loop
UNROLLS = (1, 2, 4)
ROOMY = 26  # NEON registers that a tile takes without getting in the way of anything else
SHARES = 4  # blocks at least, so that as many threads have one each


@dataclass(frozen=True)
class Access:
    """How the implicit matrix lies in the input, in elements.

    Attributes:
        rows: output rows.
        columns: output columns, tiled by the micro-kernel.
        row_stride: input distance of two output rows.
        column_stride: input distance of two output columns.
        runs: contiguous runs of one receptive field.
        inner_runs: runs with distance ``inner_stride``; groups of them are ``run_stride`` apart.
        inner_stride: distance of two runs in a group.
        run_stride: distance of two groups.
        run_length: codes in a run.
    """

    rows: int
    columns: int
    row_stride: int
    column_stride: int
    runs: int
    inner_runs: int
    inner_stride: int
    run_stride: int
    run_length: int

    @property
    def depth(self) -> int:
        """Codes of one receptive field."""
        return self.runs * self.run_length


@dataclass(frozen=True)
class GemmSchedule:
    """Parameters of the kernel that a tuner may choose.

    Attributes:
        rows: output pixels of a register tile.
        vectors: vectors of output channels of a register tile.
        block: register tiles of pixels that one panel of channels passes over before the next one
            does.
        unroll: steps of a sum in one turn of its loop; one is what a load of codes is good for.
    """

    rows: int
    vectors: int
    block: int
    unroll: int


def tiles_in(columns: int, rows: int) -> int:
    """Register tiles in an output row; the last one overlaps where they do not divide."""
    return -(-columns // rows)


def schedules(access: Access, channels: int, x_dtype: str, isa: Isa) -> Iterator[GemmSchedule]:
    """Every schedule that fits the registers, the best guess of its register tile first."""
    steps, parts = _unroll(access, x_dtype, isa), planes(x_dtype, isa)
    for rows, vectors in _register_tiles(access, channels, x_dtype, isa):
        total = access.rows * tiles_in(access.columns, rows)
        default = GemmSchedule(rows, vectors, _block(access, rows * parts, total), steps)
        yield default
        blocks = {block for block in (1, 4, 16, 64, total, default.block) if block <= total}
        for block, unroll in product(sorted(blocks), UNROLLS):
            schedule = GemmSchedule(rows, vectors, block, unroll)
            if schedule != default:
                yield schedule


def default_schedule(access: Access, channels: int, x_dtype: str, isa: Isa) -> GemmSchedule:
    """The best guess."""
    return next(schedules(access, channels, x_dtype, isa))


def _register_tiles(access: Access, channels: int, x_dtype: str, isa: Isa) -> list[tuple[int, int]]:
    """Rows and vectors, cheapest first: loads per product, and work that overlaps or is padded."""
    blocks = -(-channels // isa.lanes)
    matrix, unroll = uses_matrix(access, x_dtype, isa), _unroll(access, x_dtype, isa)
    parts = planes(x_dtype, isa)
    pair = 2 // parts if matrix else 1  # rows of codes go by twos
    found = []
    for vectors in range(1, min(blocks, 6) + 1):
        for rows in range(pair, min(access.columns, MOST_ROWS) + 1, pair):
            codes = rows * parts
            inputs = codes // 2 + 2 if matrix else codes + vectors
            if codes * vectors + inputs < isa.registers:
                found.append((rows, vectors))

    def cost(tile: tuple[int, int]) -> float:
        rows, vectors = tile
        codes = rows * parts
        products, inputs = codes * vectors * WORD, codes + vectors
        if matrix:  # of sixteen codes, like the next line
            products, loads = codes * vectors * 2, codes / 2 + vectors * 2
        elif isa.arch == "aarch64":  # codes by 16 bytes, weights by pairs of vectors
            loads = codes + vectors * WORD / 2
        else:
            loads = codes * WORD + vectors
        pixels = tiles_in(access.columns, rows) * rows / access.columns
        panels = -(-blocks // vectors)
        # epilogues work on powers of two, best on as many lanes as fill registers of codes
        short = {4: 0.0, 2: 0.1, 1: 0.25}.get(min(vectors, blocks), 0.15)
        if isa.arch == "aarch64" and codes * vectors + inputs > ROOMY:
            # the epilogue, mixed with an unrolled sum, needs registers too, and so do the loads of
            # the next step
            short += 0.2 if access.depth < UNROLLED else 0.05 * (unroll - 1)
        return pixels * ((products + loads + 3) / products + short) + 0.001 * panels

    return sorted(found, key=cost)


def _block(access: Access, rows: int, total: int) -> int:
    bytes_per_tile = rows * max(access.column_stride, 1) * max(access.runs // access.inner_runs, 1)
    return max(1, min(-(-total // SHARES), BLOCK_BYTES // bytes_per_tile))


def _unroll(access: Access, x_dtype: str, isa: Isa) -> int:
    """Two steps, unless one would be left over: what LLVM makes of that needs more registers."""
    if uses_matrix(access, x_dtype, isa):
        return 2
    codes = {"sdot": 4 * WORD}.get(isa.dot or "", WORD) if isa.dot else 1
    return 1 if access.run_length // codes % 2 else 2


def input_offset(dtype: str, isa: Isa) -> int:
    """What the kernel adds to every input code so that it fits the dot product's operand."""
    return {("int8", "vpdpbusd"): 128, ("uint8", "sdot"): -128}.get((dtype, isa.dot or ""), 0)


def uses_matrix(access: Access, dtype: str, isa: Isa) -> bool:
    """Whether inputs of ``dtype`` go through the matrix product, which takes pairs of pixels, or of
    planes of one, and eight codes at a time."""
    enough = access.columns * planes(dtype, isa) >= 2 and access.run_length >= 2 * WORD
    return isa.matrix is not None and enough


def uses_dot(dtype: str, isa: Isa) -> bool:
    """Whether codes of ``dtype`` go through the four-way dot product as they are."""
    return isa.dot is not None and dtype in ("int8", "uint8")


def cell_width(access: Access, dtype: str, isa: Isa) -> int:
    """Neighbouring codes of one channel that an instruction takes."""
    if uses_matrix(access, dtype, isa):
        return 2 * WORD
    return WORD if isa.dot else 1


def group_starts(run_length: int, width: int) -> list[int]:
    """First code of every group of ``width`` codes of a run; the last one may overlap."""
    starts = list(range(0, run_length - width + 1, width))
    if run_length % width:
        starts.append(max(run_length - width, 0))
    return starts


def group_cells(w: NDArray[np.int8], access: Access, lanes: int, width: int) -> NDArray[np.int8]:
    """Weights [N, K] by group, [N rounded up to ``lanes``, runs, groups, width]."""
    channels = w.shape[0]
    padded = -(-channels // lanes) * lanes
    starts = group_starts(access.run_length, width)
    rows = np.zeros((padded, access.runs, access.run_length + width), np.int8)
    rows[:channels, :, : access.run_length] = w.reshape(channels, access.runs, -1)
    cells = np.zeros((padded, access.runs, len(starts), width), np.int8)
    covered = 0
    for index, start in enumerate(starts):
        cells[:, :, index] = rows[:, :, start : start + width]
        cells[:, :, index, : max(covered - start, 0)] = 0
        covered = start + width
    return cells


def pack_weights(
    w: NDArray[np.int8], access: Access, vectors: int, lanes: int, width: int
) -> NDArray[np.int8]:
    """Pack [N, K] weights for the micro-kernel, by groups of ``width`` codes."""
    cells = group_cells(w, access, lanes, width)
    packed = cells.reshape(-1, lanes, *cells.shape[1:])
    panels = [
        packed[start : start + vectors].transpose(2, 3, 0, 1, 4).ravel()
        for start in range(0, len(packed), vectors)
    ]
    return np.concatenate(panels)
