"""Depthwise ``conv2d``, vectorised over channels, and the general grouped one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.errors import LoweringError
from tvm_passes.kernels.builder import build_kernel, int32, load
from tvm_passes.kernels.depthwise_micro import Taps, make_taps
from tvm_passes.kernels.depthwise_tile import (
    DepthwiseSchedule,
    Window,
    default_schedule,
)
from tvm_passes.kernels.epilogue import Epilogue, EpiloguePlan
from tvm_passes.kernels.gemm_tile import input_offset, uses_dot
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.registry import Kernel
from tvm_passes.kernels.windows import Axis, Vectors, block_starts, slide, tiled
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.gemm import Conv2dConfig


def depthwise_window(config: Conv2dConfig, specs: Sequence[TensorSpec]) -> Window:
    """Geometry of a depthwise convolution; channels are those of the input."""
    x, w = specs[:2]
    _, rows, columns, _ = OPERATORS["conv2d"].infer(config, specs).shape
    geometry = ((rows, columns), w.shape[1:3], config.strides, config.dilation)
    down, across = (Axis(*axis) for axis in zip(*geometry, strict=True))
    return Window(down, across, x.shape[3], x.shape[2])


def depthwise_kernel(
    config: Conv2dConfig,
    specs: Sequence[TensorSpec],
    plan: EpiloguePlan,
    isa: Isa,
    schedule: DepthwiseSchedule | None = None,
) -> Kernel:
    """x [1, H, W, C] with w [R * C, kh, kw, 1]; weights are packed block by block of channels."""
    _check_bias(config)
    x, w = specs[:2]
    window = depthwise_window(config, specs)
    channels, columns = window.channels, window.columns.count
    outputs = w.shape[0]
    schedule = schedule or default_schedule(window, uses_dot(x.dtype, isa), isa)
    taps = make_taps(window, schedule, x.dtype, isa)
    starts = block_starts(channels, taps.lanes)
    cells = taps.pack(np.zeros((taps.lanes, *w.shape[1:3]), np.int8)).size
    padded = outputs + max(taps.lanes - channels, 0)
    vector = TensorSpec((padded,), "int32")
    packed = [x, TensorSpec((outputs // channels * len(starts) * cells,), "int8"), vector, vector]
    with build_kernel([*packed, *plan.packed_specs(isa), plan.stored]) as builder:
        epilogue = Epilogue(plan, config, specs, builder.buffers, columns, isa)
        epilogue.fill_borders()
        loops = _Loops(window, schedule, taps, epilogue, builder.buffers)
        loops.emit(outputs // channels, cells)

    offset = input_offset(x.dtype, isa)

    def pack(constants: Mapping[int, NDArray[Any]]) -> Mapping[int, NDArray[Any]]:
        weights, biases, multiplier = (constants[index] for index in range(1, 4))
        extra = padded - outputs
        wide = np.pad(weights[..., 0], ((0, extra), (0, 0), (0, 0)))
        corrected = biases[0] - offset * weights.reshape(outputs, -1).astype(np.int64).sum(1)
        return {
            **plan.pack(constants, isa),
            1: np.concatenate(
                [
                    taps.pack(wide[first + start :][: taps.lanes])
                    for first in range(0, outputs, channels)
                    for start in starts
                ]
            ),
            2: np.pad(corrected.astype(np.int32), (0, extra)),
            3: np.pad(multiplier, (0, extra)),
        }

    return Kernel(builder.func, pack)


class _Loops:
    """Emits the loops over tiles of rows, blocks of channels and tiles of columns."""

    def __init__(
        self,
        window: Window,
        schedule: DepthwiseSchedule,
        taps: Taps,
        epilogue: Epilogue,
        buffers: Sequence[Buffer],
    ) -> None:
        self.window, self.schedule, self.taps, self.epilogue = window, schedule, taps, epilogue
        self.x, self.weights, self.bias = buffers[:3]
        self.valid = min(taps.lanes, window.channels)

    def emit(self, repeats: int, cells: int) -> None:
        """All of the convolution.

        Args:
            repeats: outputs per channel.
            cells: size of a block's weights.
        """
        taps, channels = self.taps, self.window.channels
        blocks = len(block_starts(channels, taps.lanes))

        def tile(row: Expr, rows: int) -> None:
            with T.serial(0, repeats * blocks) as block:
                place = block % blocks if repeats > 1 else block
                first = T.bind(tirx.min(place * taps.lanes, int32(channels - self.valid)))
                output = T.bind(first + block // blocks * channels) if repeats > 1 else first
                bias = [
                    T.bind(load(self.bias, output + start, taps.isa.lanes))
                    for start in range(0, taps.lanes, taps.isa.lanes)
                ]
                weights = taps.weights(self.weights, block * cells)
                self._sweep((row, rows), (first, output), weights, bias)

        rows, columns = self.window.rows, self.window.columns
        work = columns.count * repeats * channels * rows.taps * columns.taps
        tiled(rows.count, self.schedule.rows, tile, work)

    def _sweep(
        self, tile: tuple[Expr, int], channel: tuple[Expr, Expr], weights: Vectors, bias: Vectors
    ) -> None:
        """All columns of some output rows.

        Args:
            tile: the first row and their number.
            channel: first channel of the block, in the input and in the output.
            weights: of the block.
            bias: likewise.
        """
        window, (row, rows), (first, output) = self.window, tile, channel
        base = row * (window.rows.stride * window.width * window.channels) + first

        def read(column: Expr | int) -> Vectors:
            return self.taps.column(self.x, base + column * window.channels, self.valid, rows)

        def emit(start: Expr, pixels: Iterator[list[Vectors]]) -> None:
            sums: list[list[Vectors]] = [[] for _ in range(rows)]
            for columns in pixels:
                for r in range(rows):
                    sums[r].append(self.taps.accumulate(r, columns, weights, bias))
            for r in range(rows):
                self.epilogue.store(sums[r], row + r, start, output, self.valid)

        slide(window.columns, self.schedule.columns, read, emit)


def _check_bias(config: Conv2dConfig) -> None:
    if config.row_classes:
        raise LoweringError("conv2d: a grouped convolution has one bias per channel")


def grouped_kernel(
    config: Conv2dConfig, specs: Sequence[TensorSpec], plan: EpiloguePlan, isa: Isa
) -> Kernel:
    """Any grouped convolution, one output at a time: correct, not fast."""
    _check_bias(config)
    x, w = specs[:2]
    _, height, out_width, _ = OPERATORS["conv2d"].infer(config, specs).shape
    _, _, width, channels = x.shape
    filters, rows, columns, depth = w.shape
    per_group = filters // config.groups
    with build_kernel([*specs[:4], *plan.packed_specs(isa), plan.stored]) as builder:
        x_buf, w_buf, bias = builder.buffers[:3]
        epilogue = Epilogue(plan, config, specs, builder.buffers, out_width, isa)
        epilogue.fill_borders()
        acc = T.alloc_buffer((1,), "int32")
        with T.grid(height, out_width, filters) as (row, column, channel):
            T.buffer_store(acc, bias[channel], [0])
            with T.grid(rows, columns, depth) as (i, j, k):
                y = row * config.strides[0] + i * config.dilation[0]
                z = column * config.strides[1] + j * config.dilation[1]
                group = tirx.floordiv(channel, per_group)
                source = tirx.floormod(group * depth + k, channels)
                code = x_buf[(y * width + z) * channels + source]
                weight = w_buf[((channel * rows + i) * columns + j) * depth + k]
                product = code.astype("int32") * weight.astype("int32")
                T.buffer_store(acc, acc[0] + product, [0])
            epilogue.store([[acc[0]]], row, column, channel, 1)
    return Kernel(builder.func, lambda constants: plan.pack(constants, isa))
