"""Products with constant weights by one implicit-GEMM kernel: ``linear`` and ``conv2d``."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from tvm_passes.kernels.builder import KernelBuilder, build_kernel, int32, load
from tvm_passes.kernels.dot import planes
from tvm_passes.kernels.epilogue import Epilogue, EpiloguePlan
from tvm_passes.kernels.gemm_micro import MicroKernel
from tvm_passes.kernels.gemm_mmla import MmlaMicroKernel
from tvm_passes.kernels.gemm_planes import PlanesMicroKernel, planes_offset
from tvm_passes.kernels.gemm_tile import (
    Access,
    GemmSchedule,
    default_schedule,
    input_offset,
    tiles_in,
    uses_matrix,
)
from tvm_passes.kernels.gemm_weights import PackedWeights, PlainWeights, weight_layout
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.parallel import tasks
from tvm_passes.kernels.registry import Kernel
from tvm_passes.ops.base import TensorSpec
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig

AnyMicroKernel = MicroKernel | MmlaMicroKernel | PlanesMicroKernel


def gemm_kernel(
    access: Access,
    specs: Sequence[TensorSpec],
    config: LinearConfig,
    plan: EpiloguePlan,
    isa: Isa,
    schedule: GemmSchedule | None = None,
) -> Kernel:
    """Kernel of a product whose implicit matrix is described by ``access``."""
    x, w, bias = specs[:3]
    channels = w.shape[0]
    schedule = schedule or default_schedule(access, channels, x.dtype, isa)
    layout = weight_layout(access, channels, x.dtype, w.dtype, isa)
    padded = -(-channels // isa.lanes) * isa.lanes
    cut = planes(x.dtype, isa) == 2
    offset = planes_offset(isa) if cut else input_offset(x.dtype, isa)
    vector = TensorSpec((padded,), "int32")
    table = TensorSpec((bias.shape[0] * padded,), "int32")
    packed = [x, layout.spec, table, vector]
    with build_kernel([*packed, *plan.packed_specs(isa), plan.stored]) as builder:
        epilogue = Epilogue(plan, config, specs, builder.buffers, access.columns, isa)
        epilogue.fill_borders()

        def micro_kernel(weights: tirx.Buffer) -> AnyMicroKernel:
            source = builder.buffers[0]
            if cut:
                return PlanesMicroKernel(access, isa, source, weights, schedule)
            if not uses_matrix(access, x.dtype, isa):
                return MicroKernel(access, x.dtype, isa, source, weights, schedule.unroll)
            return MmlaMicroKernel(access, bool(offset), source, weights, schedule)

        loops = _Loops(access, config, schedule, layout, micro_kernel, epilogue, builder, isa)
        loops.emit(channels)

    def pack(constants: Mapping[int, NDArray[Any]]) -> Mapping[int, NDArray[Any]]:
        weights, biases, multiplier = (constants[index] for index in range(1, 4))
        rows = weights.reshape(channels, -1)
        corrected = biases.astype(np.int64) - offset * rows.astype(np.int64).sum(1)
        wide = np.zeros((biases.shape[0], padded), np.int32)
        wide[:, :channels] = corrected.astype(np.int32)
        return {
            **plan.pack(constants, isa),
            1: layout.pack(rows, schedule.vectors),
            2: wide.ravel(),
            3: np.pad(multiplier, (0, padded - channels)),
        }

    return Kernel(builder.func, pack)


class _Loops:
    """Emits the loops over blocks of pixels, panels of channels and register tiles."""

    def __init__(
        self,
        access: Access,
        config: LinearConfig,
        schedule: GemmSchedule,
        layout: PlainWeights | PackedWeights,
        micro_kernel: Callable[[tirx.Buffer], AnyMicroKernel],
        epilogue: Epilogue,
        builder: KernelBuilder,
        isa: Isa,
    ) -> None:
        self.access, self.config, self.schedule, self.layout = access, config, schedule, layout
        self.micro_kernel, self.epilogue = micro_kernel, epilogue
        self.weights, self.bias = builder.buffers[1:3]
        self.lanes = isa.lanes
        self.row_tiles = tiles_in(access.columns, schedule.rows)

    def emit(self, channels: int) -> None:
        """All of the product."""
        blocks, vectors = -(-channels // self.lanes), self.schedule.vectors
        panels = -(-blocks // vectors)
        self.padded = blocks * self.lanes
        total = self.access.rows * self.row_tiles
        size = self.schedule.block
        rest = channels - (panels - 1) * vectors * self.lanes  # channels of the last panel
        whole = panels if rest == vectors * self.lanes else panels - 1
        depth, pixels = self.access.depth, self.access.rows * self.access.columns
        blocks_of_pixels = -(-total // size)
        weights = self.layout.panels(self.weights, vectors, blocks_of_pixels)

        def block_of_pixels(block: Expr) -> None:
            first = block * size
            count = size if total % size == 0 else tirx.min(total - first, int32(size))
            micro = self.micro_kernel(weights.codes)
            if not isinstance(micro, MicroKernel):
                with T.serial(0, count) as index:
                    micro.prepare(index, self._place(first + index)[2])
            if whole:
                with T.serial(0, whole) as panel:
                    start = weights.open(panel, vectors)
                    with T.serial(0, count) as index:
                        place = first, index, panel, start
                        self._tile(micro, *place, vectors, vectors * self.lanes)
            if whole < panels:
                last, panel = -(-rest // self.lanes), int32(whole)
                start = weights.open(panel, last)
                with T.serial(0, count) as index:
                    self._tile(micro, first, index, panel, start, last, rest)

        tasks(blocks_of_pixels, pixels * depth * channels // blocks_of_pixels, block_of_pixels)

    def _place(self, tile: Expr) -> tuple[Expr, Expr, Expr]:
        """Row, column and flat input offset of a tile's first pixel."""
        access, rows = self.access, self.schedule.rows
        row, column = int32(0), tile
        if access.rows > 1:
            row = T.bind(tirx.floordiv(tile, self.row_tiles))
            column = tile - row * self.row_tiles
        column = column * rows
        if access.columns % rows:  # the last tile overlaps the one before
            column = T.bind(tirx.min(column, int32(access.columns - rows)))
        return row, column, row * access.row_stride + column * access.column_stride

    def _tile(
        self,
        micro: AnyMicroKernel,
        first: Expr,
        index: Expr,
        panel: Expr,
        weights: Expr,
        vectors: int,
        valid: int,
    ) -> None:
        row, column, start = self._place(first + index)
        channel = panel * (self.schedule.vectors * self.lanes)
        biases = []
        for r in range(self.schedule.rows):
            bias = self._bias_row(row, column + r) * self.padded + channel
            biases.append(
                [load(self.bias, bias + v * self.lanes, self.lanes) for v in range(vectors)]
            )
        accs = micro.multiply(biases, index, start, weights)
        self.epilogue.store(accs, row, column, channel, valid)

    def _bias_row(self, row: Expr, column: Expr) -> Expr | int:
        config = self.config
        if not isinstance(config, Conv2dConfig) or not config.row_classes:
            return 0
        width = max(config.column_classes) + 1
        return _step(config.row_classes, row) * width + _step(config.column_classes, column)


def _step(table: tuple[int, ...], index: Expr) -> Expr:
    """``table[index]`` as a chain of comparisons, for tables with few steps."""
    value = int32(table[0])
    for position in range(1, len(table)):
        if table[position] != table[position - 1]:
            value = tirx.Select(index >= position, int32(table[position]), value)
    return value


def linear_access(specs: Sequence[TensorSpec], columns: int | None = None) -> Access:
    """Rows of x [..., K] as pixels; ``columns`` of them to a row where rows matter."""
    depth = specs[1].shape[1]
    pixels = prod(specs[0].shape[:-1])
    columns = columns or pixels
    return Access(pixels // columns, columns, columns * depth, depth, 1, 1, 0, 0, depth)


def conv2d_access(config: Conv2dConfig, specs: Sequence[TensorSpec], out: TensorSpec) -> Access:
    """Receptive fields of a padded NHWC map."""
    x, w = specs[:2]
    _, _, width, channels = x.shape
    _, height_taps, width_taps, _ = w.shape
    contiguous = config.dilation[1] == 1
    return Access(
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
