"""Kernel of ``resize_bilinear``, vectorised over channels.

Enlarging by a small power of two has few weights, all of them multiples of a small fraction: sums
of products with integers are exact, and give what the general formula gives.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import build_kernel, int32, load, splat, store
from tvm_passes.kernels.elementwise import centred, pre_shifted
from tvm_passes.kernels.fixed_point import constant, mulhi, requantize, saturate, widen
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import vector_loop
from tvm_passes.kernels.parallel import PER_BYTE, tasks
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.kernels.windows import (
    Axis,
    Held,
    Vectors,
    block_starts,
    channel_lanes,
    slide,
)
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.elementwise import INT32_MAX, reach
from tvm_passes.ops.resize import ResizeConfig

FACTORS = (2, 4)


@kernel("resize_bilinear")
def resize_bilinear(config: ResizeConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x [N, H, W, C] with the tables of rows and columns."""
    out = OPERATORS["resize_bilinear"].infer(config, specs)
    with build_kernel([*specs, out]) as builder:
        if all(factor in FACTORS for factor in config.factors):
            _Enlarge(config, specs[0], isa, builder.buffers[0], builder.buffers[-1]).emit()
        else:
            _interpolate(config, specs[0], isa, builder.buffers)
    return Kernel(builder.func)


def _finish(acc: Expr, config: ResizeConfig, isa: Isa) -> Expr:
    multiplier, shift = constant(config.multiplier, acc), constant(config.shift, acc)
    value = requantize(acc, multiplier, shift, config.left, isa)
    return saturate(value, config.qmin, config.qmax, config.dtype, config.zero_point)


class _Enlarge:
    """Whole factors: the outputs between two neighbouring sources are made together."""

    def __init__(
        self, config: ResizeConfig, x: TensorSpec, isa: Isa, x_buf: Buffer, out: Buffer
    ) -> None:
        self.config, self.shape, self.dtype, self.isa = config, x.shape, x.dtype, isa
        self.x, self.out = x_buf, out
        self.sum_dtype = "int32" if x.dtype == "int16" else "int16"
        most = isa.wide if self.sum_dtype == "int16" else isa.wide // 2
        self.lanes = channel_lanes(x.shape[3], most)
        self.bits = sum(factor.bit_length() for factor in config.factors)
        # fraction bits of the general formula beyond those of the weights: as soon as they fit
        scale = config.fraction - 1 - self.bits
        self.early, self.late = (scale, 0) if self.sum_dtype == "int32" else (0, scale)

    def emit(self) -> None:
        """All of the output."""
        batch, height, width, channels = self.shape
        with T.serial(0, batch) as image:

            def rows(top: Expr | int, bottom: Expr | int, first: Expr | int, phases: range) -> None:
                sources = [(image * height + row) * width * channels for row in (top, bottom)]
                target = (image * self.config.size[0] + first) * self.config.size[1] * channels
                with T.serial(0, len(block_starts(channels, self.lanes))) as block:
                    start = T.bind(tirx.min(block * self.lanes, int32(channels - self.lanes)))
                    self._across([row + start for row in sources], target + start, phases)

            factor = self.config.factors[0]
            half = factor // 2
            rows(0, 0, 0, range(half, factor))
            work = PER_BYTE * factor * self.config.size[1] * channels
            tasks(
                height - 1,
                work,
                lambda row: rows(row, row + 1, row * factor + half, range(factor)),
            )
            last = height - 1
            rows(last, last, last * factor + half, range(half))

    def _across(self, sources: Sequence[Expr], target: Expr, phases: range) -> None:
        """The output rows between two source rows."""
        _, _, width, channels = self.shape
        factor = self.config.factors[1]
        half = factor // 2

        def read(column: Expr | int) -> Vectors:
            """One column, interpolated between the rows."""
            top, bottom = (
                T.bind(load(self.x, row + column * channels, self.lanes)) for row in sources
            )
            return [self._down(top, bottom, phase) for phase in phases]

        def between(left: Vectors, right: Vectors, first: Expr | int, across: range) -> None:
            for row, pair in enumerate(zip(left, right, strict=True)):
                for column, phase in enumerate(across):
                    offset = row * self.config.size[1] + first + column
                    self._store(target + offset * channels, self._blend(*pair, phase, factor))

        def emit(start: Expr, windows: Iterator[list[Vectors]]) -> None:
            for position, (left, right) in enumerate(windows):
                between(left, right, (start + position) * factor + half, range(factor))

        edge = read(0)
        between(edge, edge, 0, range(half, factor))
        slide(Axis(width - 1, 2, 1), 2, read, emit)
        edge = read(width - 1)
        between(edge, edge, (width - 1) * factor + half, range(half))

    def _down(self, top: Expr, bottom: Expr, phase: int) -> Expr:
        top, bottom = (widen(code, self.sum_dtype) for code in (top, bottom))
        return Held(self._blend(top, bottom, phase, self.config.factors[0], self.early)).get()

    def _blend(self, a: Expr, b: Expr, phase: int, factor: int, scale: int = 0) -> Expr:
        """``2 * factor << scale`` times what lies ``(phase + 1/2) / factor`` of the way to b."""
        near, far = (2 * (factor - phase) - 1) << scale, (2 * phase + 1) << scale
        return a * constant(near, a, self.sum_dtype) + b * constant(far, b, self.sum_dtype)

    def _store(self, offset: Expr, total: Expr) -> None:
        config = self.config
        if config.zero_x:
            zero = config.zero_x << (self.bits + self.early)
            total = total - constant(zero, total, self.sum_dtype)
        acc = widen(total, "int32")
        acc = acc << constant(self.late, acc) if self.late else acc
        greatest = reach(self.dtype, config.zero_x) << (self.bits + self.early + self.late)
        if greatest > INT32_MAX >> config.left:
            acc = pre_shifted(acc, config.left)
        store(self.out, offset, _finish(Held(acc).get(), config, self.isa), self.lanes)


def _interpolate(config: ResizeConfig, x: TensorSpec, isa: Isa, buffers: Sequence[Buffer]) -> None:
    """Any size, from the tables."""
    x_buf, row_table, column_table, out = buffers
    batch, height, width, channels = x.shape
    rows, columns = config.size

    def blend(a: Expr, b: Expr, weights: Sequence[Expr], lanes: int) -> Expr:
        near, far = (splat(weight, lanes) for weight in weights)
        return mulhi(a, near, isa) + mulhi(b, far, isa)

    with T.grid(batch, rows, columns) as (image, row, column):
        top, bottom, *down = (T.bind(row_table[part * rows + row]) for part in range(4))
        left, right, *across = (T.bind(column_table[part * columns + column]) for part in range(4))
        sources = [
            [((image * height + y) * width + z) * channels for z in (left, right)]
            for y in (top, bottom)
        ]
        target = ((image * rows + row) * columns + column) * channels

        def emit(
            sources: Sequence[Sequence[Expr]],
            weights: tuple[Sequence[Expr], Sequence[Expr]],
            target: Expr,
            first: Expr,
            lanes: int,
        ) -> None:
            def code(start: Expr) -> Expr:
                value = centred(load(x_buf, start + first, lanes), config.zero_x)
                return value << constant(config.fraction, value)

            down, across = weights
            upper, lower = (blend(code(a), code(b), across, lanes) for a, b in sources)
            one = constant(1, upper)
            acc = pre_shifted(T.bind(blend(upper << one, lower << one, down, lanes)), config.left)
            store(out, target + first, _finish(acc, config, isa), lanes)

        vector_loop(channels, isa.lanes, partial(emit, sources, (down, across), target))
