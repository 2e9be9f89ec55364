"""Kernel of ``mean``: sums of vectors along the last axis, reduced or not."""

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import build_kernel, int32, load, splat, store
from tvm_passes.kernels.elementwise import centred, pre_shifted
from tvm_passes.kernels.fixed_point import constant, requantize, saturate, widen
from tvm_passes.kernels.functions import lane_sum
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import nested, vector_loop
from tvm_passes.kernels.movement import row_major
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.pooling import MeanConfig


@kernel("mean")
def mean(config: MeanConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x of any rank; vectors run along the last axis, reduced or not."""
    shape = specs[0].shape
    last = len(shape) - 1
    kept = [axis for axis in range(last) if axis not in config.axes]
    with build_kernel([specs[0], OPERATORS["mean"].infer(config, specs)]) as builder:
        sums = _Mean(config, shape, isa, *builder.buffers)
        emit = sums.whole if last in config.axes else sums.along

        def body(indices: Sequence[Expr]) -> None:
            row: Expr = int32(0)
            for axis, index in zip(kept, indices, strict=True):
                row = row * shape[axis] + index
            emit(sums.offset_of(kept, indices), row)

        nested([shape[axis] for axis in kept], body)
    return Kernel(builder.func)


class _Mean:
    """Emits the mean of what belongs to one position of the axes that are kept."""

    def __init__(
        self, config: MeanConfig, shape: tuple[int, ...], isa: Isa, x: Buffer, out: Buffer
    ) -> None:
        self.config, self.shape, self.isa, self.x, self.out = config, shape, isa, x, out
        self.strides = row_major(shape)
        self.reduced = [axis for axis in config.axes if axis != len(shape) - 1]
        self.sum_dtype = "int64" if config.right else "int32"
        self.acc = T.alloc_buffer((isa.lanes,), self.sum_dtype)
        self.total = T.alloc_buffer((1,), self.sum_dtype)

    def along(self, base: Expr, row: Expr) -> None:
        """Channels are kept: every vector of them has its own sums."""
        channels = self.shape[-1]

        def emit(first: Expr, width: int) -> None:
            self._clear(width)

            def add(indices: Sequence[Expr]) -> None:
                value = self._term(base + self.offset_of(self.reduced, indices) + first, width)
                store(self.acc, 0, load(self.acc, 0, width) + value, width)

            nested([self.shape[axis] for axis in self.reduced], add)
            self._finish(load(self.acc, 0, width), row * channels + first, width)

        vector_loop(channels, self.isa.lanes, emit)

    def whole(self, base: Expr, row: Expr) -> None:
        """The last axis is reduced as well: lanes are added up at the end."""
        lanes, total = self.isa.lanes, self.total
        self._clear(lanes)
        T.buffer_store(total, tirx.const(0, self.sum_dtype), [0])

        def add(indices: Sequence[Expr]) -> None:
            def emit(first: Expr, width: int) -> None:
                value = self._term(base + self.offset_of(self.reduced, indices) + first, width)
                if width == lanes:
                    store(self.acc, 0, load(self.acc, 0, lanes) + value, lanes)
                else:
                    T.buffer_store(total, total[0] + lane_sum(value, width), [0])

            vector_loop(self.shape[-1], lanes, emit)

        nested([self.shape[axis] for axis in self.reduced], add)
        self._finish(total[0] + lane_sum(load(self.acc, 0, lanes), lanes), row, 1)

    def offset_of(self, axes: Sequence[int], indices: Sequence[Expr]) -> Expr:
        """Flat offset of indices along some axes."""
        offset: Expr = int32(0)
        for axis, index in zip(axes, indices, strict=True):
            offset = offset + index * self.strides[axis]
        return offset

    def _clear(self, width: int) -> None:
        store(self.acc, 0, splat(tirx.const(0, self.sum_dtype), width), width)

    def _term(self, offset: Expr, width: int) -> Expr:
        return widen(centred(load(self.x, offset, width), self.config.zero_x), self.sum_dtype)

    def _finish(self, value: Expr, offset: Expr, width: int) -> None:
        config = self.config
        wide = value >> constant(config.right, value, self.sum_dtype) if config.right else value
        narrow = pre_shifted(widen(wide, "int32"), config.left)
        multiplier, shift = constant(config.multiplier, narrow), constant(config.shift, narrow)
        result = requantize(narrow, multiplier, shift, config.left, self.isa)
        code = saturate(result, config.qmin, config.qmax, config.dtype, config.zero_point)
        store(self.out, offset, code, width)
