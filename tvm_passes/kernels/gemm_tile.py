"""Geometry of the implicit-GEMM kernel: input access, register tile, packed weights.

With a four-way dot product, weights are packed ``[panel][run][k/4][vector][lane][4]``; without,
``[panel][run][k][vector][lane]``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tvm_passes.kernels.isa import Isa


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


@dataclass(frozen=True)
class Tile:
    """Register tile: output pixels times vectors of output channels."""

    rows: int
    vectors: int


def default_tile(columns: int, channels: int, isa: Isa) -> Tile:
    """Largest tile that fits the registers, evened out over the extents."""
    blocks = -(-channels // isa.lanes)
    vectors = min(4, blocks)
    panels = -(-blocks // vectors)
    vectors = -(-blocks // panels)
    most = max(1, (isa.registers - vectors - 2) // vectors)
    most = min(most, 8)
    tiles = -(-columns // most)
    return Tile(-(-columns // tiles), vectors)


def input_offset(dtype: str, isa: Isa) -> int:
    """What the kernel adds to every input code so that it fits the dot product's operand."""
    return {("int8", "vpdpbusd"): 128, ("uint8", "sdot"): -128}.get((dtype, isa.dot or ""), 0)


def uses_dot(dtype: str, isa: Isa) -> bool:
    """Whether inputs of ``dtype`` go through the four-way dot product."""
    return isa.dot is not None and dtype in ("int8", "uint8")


def pack_weights(
    w: NDArray[np.int8], access: Access, vectors: int, lanes: int, depth: int
) -> NDArray[np.int8]:
    """Pack [N, K] weights for the micro-kernel; ``depth`` is 4 with a dot product, else 1."""
    channels = w.shape[0]
    blocks = -(-channels // lanes)
    groups = -(-access.run_length // depth)
    padded = np.zeros((blocks * lanes, access.runs, groups * depth), np.int8)
    padded[:channels, :, : access.run_length] = w.reshape(channels, access.runs, -1)
    cells = padded.reshape(blocks, lanes, access.runs, groups, depth)
    panels = [
        cells[start : start + vectors].transpose(2, 3, 0, 1, 4).ravel()
        for start in range(0, blocks, vectors)
    ]
    return np.concatenate(panels)
