"""Kernel of ``avg_pool2d``: sums down every column, then sums of neighbouring columns."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import build_kernel, int32, load, splat, store
from tvm_passes.kernels.elementwise import pre_shifted
from tvm_passes.kernels.fixed_point import constant, rescale, saturate, widen
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.kernels.windows import (
    Axis,
    Held,
    Vectors,
    block_starts,
    channel_lanes,
    slide,
    tiled,
)
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.elementwise import INT32_MAX, reach
from tvm_passes.ops.pooling import AvgPool2dConfig

UNROLLED = 8  # sums of more than that are loops


@kernel("avg_pool2d")
def avg_pool2d(config: AvgPool2dConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x [N, H, W, C] with the multipliers by window count."""
    out = OPERATORS["avg_pool2d"].infer(config, specs)
    with build_kernel([*specs, out]) as builder:
        pool = _Pool(config, specs[0], out, isa, builder.buffers)
        geometry = (config.kernel, config.strides, config.padding)
        rows, columns = (
            bands(outputs, extent, *axis)
            for outputs, extent, *axis in zip(
                out.shape[1:3], specs[0].shape[1:3], *geometry, strict=True
            )
        )
        work = prod(config.kernel) * prod(out.shape[2:])
        with T.serial(0, out.shape[0]) as image:
            for band in rows:
                tiled(
                    band.axis.count,
                    2 if band.axis.stride == 1 and band.axis.taps <= UNROLLED else 1,
                    partial(pool.emit, image, band, columns),
                    work,
                )
    return Kernel(builder.func)


@dataclass(frozen=True)
class Band:
    """Consecutive windows with equally many sources inside the map.

    Attributes:
        first: first output.
        source: first source of the first output.
        axis: the windows.
    """

    first: int
    source: int
    axis: Axis


def bands(outputs: int, extent: int, taps: int, stride: int, padding: int) -> list[Band]:
    """Bands of one axis: borders and the interior."""
    found: list[Band] = []
    for output in range(outputs):
        first = output * stride - padding
        source, end = max(first, 0), min(first + taps, extent)
        if found:
            band, axis = found[-1], found[-1].axis
            if axis.taps == end - source and band.source + axis.count * stride == source:
                found[-1] = replace(band, axis=replace(axis, count=axis.count + 1))
                continue
        found.append(Band(output, source, Axis(1, end - source, stride)))
    return found


class _Pool:
    """Emits tiles of output rows."""

    def __init__(
        self,
        config: AvgPool2dConfig,
        x: TensorSpec,
        out: TensorSpec,
        isa: Isa,
        buffers: Sequence[Buffer],
    ) -> None:
        self.config, self.shape, self.out, self.isa = config, x.shape, out, isa
        self.x, self.multipliers, self.out_buf = buffers
        self.greatest = prod(config.kernel) * reach(x.dtype, config.zero_x)
        small = prod(config.kernel) * 255 <= INT_RANGE["int16"][1]
        self.sum_dtype = "int16" if small and x.dtype != "int16" else "int32"
        most = isa.wide if self.sum_dtype == "int16" else isa.wide // 2
        self.lanes = channel_lanes(x.shape[3], most)

    def emit(self, image: Expr, band: Band, columns: Sequence[Band], row: Expr, rows: int) -> None:
        """``rows`` output rows of a band, from its ``row``-th on."""
        channels = self.shape[3]
        with T.serial(0, len(block_starts(channels, self.lanes))) as block:
            first = T.bind(tirx.min(block * self.lanes, int32(channels - self.lanes)))
            source = image * self.shape[1] + band.source + row * band.axis.stride
            target = image * self.out.shape[1] + band.first + row
            for column in columns:
                self._across(
                    (source * self.shape[2] + column.source) * channels + first,
                    (target * self.out.shape[2] + column.first) * channels + first,
                    (band.axis, column.axis),
                    rows,
                )

    def _across(self, source: Expr, target: Expr, axes: tuple[Axis, Axis], rows: int) -> None:
        """All windows of a band of columns."""
        down, across = axes
        count = down.taps * across.taps
        factor = T.bind(self.multipliers[count])
        channels = self.shape[3]

        def read(column: Expr | int) -> Vectors:
            """Sums down one column, of every row."""

            def at(line: Expr | int) -> Expr:
                offset = source + (line * self.shape[2] + column) * channels
                return widen(load(self.x, offset, self.lanes), self.sum_dtype)

            return [
                _total(down.taps, partial(lambda r, tap: at(r * down.stride + tap), r), r)
                for r in range(rows)
            ]

        def finish(total: Expr, row: int, column: Expr) -> None:
            offset = target + (row * self.out.shape[2] + column) * channels
            store(self.out_buf, offset, self._codes(total, count, factor), self.lanes)

        def emit(start: Expr, windows: Iterator[list[Vectors]]) -> None:
            for position, columns in enumerate(windows):
                for r in range(rows):
                    sums = [column[r] for column in columns]
                    finish(_total(len(sums), sums.__getitem__, position), r, start + position)

        if across.taps <= UNROLLED:
            slide(across, 4, read, emit)
            return
        with T.serial(0, across.count) as column:
            for r in range(rows):
                total = _total(
                    across.taps, partial(lambda r, tap: read(column * across.stride + tap)[r], r)
                )
                finish(total, r, column)

    def _codes(self, total: Expr, count: int, multiplier: Expr) -> Expr:
        config, lanes = self.config, self.lanes
        if config.zero_x:
            total = total - constant(count * config.zero_x, total, self.sum_dtype)
        acc = widen(total, "int32")
        if self.greatest > INT32_MAX >> config.left:
            acc = pre_shifted(acc, config.left)
        value = rescale(acc, splat(multiplier, lanes), config.left, self.isa)
        return saturate(value, config.qmin, config.qmax, config.dtype, config.zero_point)


def _total(count: int, item: Callable[[Any], Expr], position: int = 0) -> Expr:
    """Sum of items, held.

    Windows in even positions begin with the items that they share with the next one, so that LLVM
    adds those up once.
    """
    if count <= UNROLLED:
        order = range(count) if position % 2 else [*range(1, count), 0]
        total, *rest = (item(index) for index in order)
        return Held(sum(rest, total)).get()
    held = Held(item(int32(0)))
    with T.serial(1, count) as index:
        held.put(held.get() + item(index))
    return held.get()
