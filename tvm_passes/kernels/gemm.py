"""``linear`` and dense ``conv2d``: one implicit-GEMM micro-kernel.

A row of the implicit matrix is a pixel's receptive field: ``runs`` contiguous runs of
``run_length`` codes. A tile of ``rows`` output pixels times ``vectors`` registers of output
channels is accumulated in registers. With a four-way dot product, weights are packed
``[panel][run][k/4][vector][lane][4]``; without, ``[panel][run][k][vector][lane]``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import Accumulators, build_kernel, int32, load, splat
from tvm_passes.kernels.depthwise import depthwise_kernel, grouped_kernel
from tvm_passes.kernels.epilogue import store_channels
from tvm_passes.kernels.fixed_point import widen
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig

SIGN_FLIP = -0x7F7F7F80  # 0x80808080: xor turns four s8 into u8 plus 128, and back


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


def step(table: tuple[int, ...], index: Expr) -> Expr:
    """``table[index]`` as a chain of comparisons, for tables with few steps."""
    value = int32(table[0])
    for position in range(1, len(table)):
        if table[position] != table[position - 1]:
            value = tirx.Select(index >= position, int32(table[position]), value)
    return value


class _MicroKernel:
    """Emits the product of one register tile."""

    def __init__(
        self,
        access: Access,
        channels: int,
        x_dtype: str,
        config: LinearConfig,
        isa: Isa,
        buffers: Sequence[Buffer],
    ) -> None:
        self.access, self.channels, self.config, self.isa = access, channels, config, isa
        self.x, self.w, self.bias, self.multiplier, self.shift, self.out = buffers
        self.x_dtype = x_dtype
        self.dot = uses_dot(x_dtype, isa)
        self.depth = 4 if self.dot else 1
        self.groups = -(-access.run_length // self.depth)
        self.padded = -(-channels // isa.lanes) * isa.lanes

    def emit(
        self,
        row: Expr | int,
        column: Expr | int,
        tile: Tile,
        panel_start: Expr,
        first_block: Expr,
        tail: int,
    ) -> None:
        """One tile: ``tile.rows`` pixels from (row, column), blocks from ``first_block``.

        ``tail`` is the number of valid lanes of the last block, 0 if it is full.
        """
        lanes, access = self.isa.lanes, self.access
        acc = Accumulators(tile.rows * tile.vectors, lanes)
        for r in range(tile.rows):
            bias_row = self._bias_row(row, column + r)
            for v in range(tile.vectors):
                start = bias_row * self.padded + (first_block + v) * lanes
                acc[r * tile.vectors + v] = load(self.bias, start, lanes)
        base = row * access.row_stride + column * access.column_stride
        inner = access.inner_runs
        with T.serial(0, access.runs // inner) as outer_run:
            with T.serial(0, inner) as inner_run:
                run = outer_run * inner + inner_run
                start = base + outer_run * access.run_stride + inner_run * access.inner_stride
                weights = panel_start + run * (self.groups * self.depth * tile.vectors * lanes)
                self._run(acc, start, weights, tile)
        for r in range(tile.rows):
            pixel = row * access.columns + column + r
            for v in range(tile.vectors):
                block = first_block + v
                last = v == tile.vectors - 1
                store_channels(
                    self.out,
                    pixel * self.channels + block * lanes,
                    acc[r * tile.vectors + v],
                    block * lanes,
                    lanes,
                    tail if last and tail else lanes,
                    (self.multiplier, self.shift),
                    self.config,
                    self.isa,
                )

    def _bias_row(self, row: Expr | int, column: Expr | int) -> Expr | int:
        config = self.config
        if not isinstance(config, Conv2dConfig) or not config.row_classes:
            return 0
        width = max(config.column_classes) + 1
        return step(config.row_classes, row) * width + step(config.column_classes, column)

    def _run(self, acc: Accumulators, start: Expr, weights: Expr, tile: Tile) -> None:
        whole, rest = divmod(self.access.run_length, self.depth)
        size = self.depth * tile.vectors * self.isa.lanes
        if whole:
            with T.serial(0, whole) as k:
                self._step(acc, start + k * self.depth, weights + k * size, tile, self.depth)
        if rest:
            self._step(acc, start + whole * self.depth, weights + whole * size, tile, rest)

    def _step(self, acc: Accumulators, start: Expr, weights: Expr, tile: Tile, valid: int) -> None:
        """``depth`` codes of every row times one group of weights."""
        lanes = self.isa.lanes
        cells = [
            T.bind(load(self.w, weights + v * lanes * self.depth, lanes * self.depth))
            for v in range(tile.vectors)
        ]
        if not self.dot:
            cells = [T.bind(widen(cell, "int16")) for cell in cells]
        for r in range(tile.rows):
            code = T.bind(self._codes(start + r * self.access.column_stride, valid))
            for v in range(tile.vectors):
                index = r * tile.vectors + v
                acc[index] = self._multiply_add(acc[index], code, cells[v])

    def _codes(self, start: Expr, valid: int) -> Expr:
        """The codes of one row in every lane, as the multiplication wants them."""
        lanes = self.isa.lanes
        if not self.dot:
            return splat(self.x[start].astype("int16"), lanes)
        if valid == self.depth:
            word = T.reinterpret("int32", load(self.x, start, 4))
        else:  # a short tail: never read past the run
            word = int32(0)
            for position in range(valid):
                byte = self.x[start + position].astype("int32") & int32(0xFF)
                word = word | (byte << int32(8 * position))
        if input_offset(self.x_dtype, self.isa):
            word = word ^ int32(SIGN_FLIP)
        return splat(word, lanes)

    def _multiply_add(self, acc: Expr, code: Expr, cell: Expr) -> Expr:
        lanes = self.isa.lanes
        if self.isa.dot == "vpdpbusd" and self.dot:
            return tirx.call_llvm_pure_intrin(
                f"int32x{lanes}",
                "llvm.x86.avx512.vpdpbusd.512",
                acc,
                T.reinterpret(f"uint8x{lanes * 4}", code),
                cell,
            )
        if self.isa.dot == "sdot" and self.dot:
            return tirx.call_llvm_pure_intrin(
                f"int32x{lanes}",
                "llvm.aarch64.neon.sdot.v4i32.v16i8",
                acc,
                cell,
                T.reinterpret(f"int8x{lanes * 4}", code),
            )
        return acc + widen(code, "int32") * widen(cell, "int32")


def _tiled(extent: int, tile: int, emit: Callable[[Expr | int, int], None]) -> None:
    """Cover ``extent`` by full tiles in a loop, and a smaller one at the end."""
    full, rest = divmod(extent, tile)
    if full:
        with T.serial(0, full) as index:
            emit(index * tile, tile)
    if rest:
        emit(int32(full * tile), rest)


def gemm_kernel(
    access: Access,
    specs: Sequence[TensorSpec],
    out: TensorSpec,
    config: LinearConfig,
    isa: Isa,
    tile: Tile | None = None,
) -> Kernel:
    """Kernel of a product whose implicit matrix is described by ``access``."""
    x, w, bias = specs[:3]
    channels = w.shape[0]
    tile = tile or default_tile(access.columns, channels, isa)
    lanes = isa.lanes
    blocks = -(-channels // lanes)
    padded = blocks * lanes
    depth = 4 if uses_dot(x.dtype, isa) else 1
    panel_block = access.runs * -(-access.run_length // depth) * depth * lanes
    packed = [
        x,
        TensorSpec((blocks * panel_block,), "int8"),
        TensorSpec((bias.shape[0] * padded,), "int32"),
        TensorSpec((padded,), "int32"),
        TensorSpec((padded,), "int32"),
        out,
    ]
    with build_kernel(packed) as builder:
        micro = _MicroKernel(access, channels, x.dtype, config, isa, builder.buffers)

        def panel(first_block: Expr, vectors: int, tail: int) -> None:
            with T.serial(0, access.rows) as row:
                _tiled(
                    access.columns,
                    tile.rows,
                    lambda column, rows: micro.emit(
                        row,
                        column,
                        Tile(rows, vectors),
                        first_block * panel_block,
                        first_block,
                        tail,
                    ),
                )

        whole = (blocks - 1) // tile.vectors * tile.vectors  # blocks in panels before the last
        if whole:
            with T.serial(0, whole // tile.vectors) as index:
                panel(index * tile.vectors, tile.vectors, 0)
        panel(int32(whole), blocks - whole, channels % lanes)

    offset = input_offset(x.dtype, isa)

    def pack(constants: Mapping[int, NDArray[Any]]) -> Mapping[int, NDArray[Any]]:
        weights, biases, multiplier, shift = (constants[index] for index in range(1, 5))
        rows = weights.reshape(channels, -1)
        corrected = biases.astype(np.int64) - offset * rows.astype(np.int64).sum(1)
        wide = np.zeros((biases.shape[0], padded), np.int32)
        wide[:, :channels] = corrected.astype(np.int32)
        return {
            1: pack_weights(rows, access, tile.vectors, lanes, depth),
            2: wide.ravel(),
            3: np.pad(multiplier, (0, padded - channels)),
            4: np.pad(shift, (0, padded - channels), constant_values=1),
        }

    return Kernel(builder.func, pack)


@kernel("linear")
def linear(config: LinearConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x [..., K] times w [N, K]."""
    depth = specs[1].shape[1]
    rows = prod(specs[0].shape[:-1])
    access = Access(1, rows, 0, depth, 1, 1, 0, 0, depth)
    return gemm_kernel(access, specs, OPERATORS["linear"].infer(config, specs), config, isa)


@kernel("conv2d")
def conv2d(config: Conv2dConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """Dense, depthwise or grouped convolution of a padded NHWC map."""
    x, w = specs[:2]
    out = OPERATORS["conv2d"].infer(config, specs)
    if config.groups != 1:
        depthwise = config.groups == x.shape[3] == w.shape[0]
        return (depthwise_kernel if depthwise else grouped_kernel)(config, specs, out, isa)
    _, _, width, channels = x.shape
    _, height_taps, width_taps, _ = w.shape
    contiguous = config.dilation[1] == 1
    access = Access(
        rows=out.shape[1],
        columns=out.shape[2],
        row_stride=config.strides[0] * width * channels,
        column_stride=config.strides[1] * channels,
        runs=height_taps if contiguous else height_taps * width_taps,
        inner_runs=1 if contiguous else width_taps,
        inner_stride=config.dilation[1] * channels,
        run_stride=config.dilation[0] * width * channels,
        run_length=width_taps * channels if contiguous else channels,
    )
    return gemm_kernel(access, specs, out, config, isa)
