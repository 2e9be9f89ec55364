"""Kernel of ``softmax``: three passes over a row that stays in the first-level cache."""

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import build_kernel, int32, load, splat, store
from tvm_passes.kernels.fixed_point import (
    constant,
    mulhi,
    requantize,
    rounding_shift,
    saturate,
    saturating_add,
    widen,
)
from tvm_passes.kernels.functions import (
    exp2_negative,
    held,
    int64,
    lane_max,
    lane_sum,
    log2_wide,
    reciprocal,
)
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import collapse, nested, vector_loop
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.numerics import EXP2_BITS, LOG2_BITS
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.softmax import SoftmaxConfig


@kernel("softmax")
def softmax(config: SoftmaxConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x [..., N] with an optional broadcast bias."""
    out = OPERATORS["softmax"].infer(config, specs)
    nest = collapse(out.shape[:-1], [spec.shape[:-1] for spec in specs])
    with build_kernel([*specs, out]) as builder:
        emitter = _Rows(config, specs, out.shape[-1], isa, builder.buffers)

        def body(outer: Sequence[Expr]) -> None:
            starts = []
            for strides in nest.strides:
                row: Expr = int32(0)
                for stride, index in zip(strides, outer, strict=True):
                    row = row + index * stride
                starts.append(row)
            emitter.row(starts)

        nested(nest.extents, body)
    return Kernel(builder.func)


class _Rows:
    """Emits the work on one row."""

    def __init__(
        self,
        config: SoftmaxConfig,
        specs: Sequence[TensorSpec],
        length: int,
        isa: Isa,
        buffers: Sequence[Buffer],
    ) -> None:
        self.config, self.specs, self.length, self.isa = config, specs, length, isa
        *self.inputs, self.out = buffers
        lanes = isa.lanes
        self.work = T.alloc_buffer((length,), "int32")  # logits, then exponents or weights
        self.greatest = T.alloc_buffer((lanes,), "int32")
        self.sums = T.alloc_buffer((lanes,), "int64")
        self.total = T.alloc_buffer((1,), "int64")

    def row(self, starts: Sequence[Expr]) -> None:
        """One row; ``starts`` are the row's numbers in x and in the bias."""
        greatest = self._logits(starts)
        total = self._weights(greatest)
        start = starts[0] * self.length
        if self.config.bits:
            self._probabilities(start, total)
        else:
            self._codes(start, total)

    def _logits(self, starts: Sequence[Expr]) -> Expr:
        """Write the logits of the row to ``work``; return the greatest."""
        lanes = self.isa.lanes
        store(self.greatest, 0, splat(int32(-(2**31)), lanes), lanes)

        def emit(offset: Expr, width: int) -> None:
            value = widen(load(self.inputs[0], starts[0] * self.length + offset, width), "int32")
            if len(self.inputs) > 1:
                value = saturating_add(value, self._bias(starts[1], offset, width))
            value = T.bind(value)
            store(self.work, offset, value, width)
            best = tirx.max(load(self.greatest, 0, width), value)
            store(self.greatest, 0, best, width)

        vector_loop(self.length, lanes, emit)
        return T.bind(lane_max(load(self.greatest, 0, lanes), lanes))

    def _bias(self, row: Expr, offset: Expr, width: int) -> Expr:
        bias = self.inputs[1]
        if self.specs[1].shape[-1] == 1:
            return splat(bias[row], width)
        return load(bias, row * self.length + offset, width)

    def _weights(self, greatest: Expr) -> Expr:
        """Sum of the weights; ``work`` becomes weights, or exponents for AdaLog codes."""
        config, lanes = self.config, self.isa.lanes
        store(self.sums, 0, splat(int64(0), lanes), lanes)
        T.buffer_store(self.total, int64(0), [0])

        def emit(offset: Expr, width: int) -> None:
            # the distance may take 32 bits, so it is unsigned until it is clamped
            distance = splat(greatest.astype("uint32"), width) - widen(
                load(self.work, offset, width), "uint32"
            )
            if config.right:
                distance = distance >> constant(config.right, distance, "uint32")
            near = tirx.min(distance, constant(config.limit, distance, "uint32"))
            near = widen(near, "int32")
            exponent = T.bind(
                requantize(
                    near,
                    constant(config.multiplier, near),
                    constant(config.shift, near),
                    config.left,
                    self.isa,
                )
            )
            weight = T.bind(exp2_negative(exponent, self.isa))
            store(self.work, offset, weight if config.bits else exponent, width)
            wide = widen(weight, "int64")
            if width == lanes:
                store(self.sums, 0, load(self.sums, 0, lanes) + wide, lanes)
            else:
                T.buffer_store(self.total, self.total[0] + lane_sum(wide, width), [0])

        vector_loop(self.length, lanes, emit)
        return T.bind(self.total[0] + lane_sum(load(self.sums, 0, lanes), lanes))

    def _probabilities(self, start: Expr, total: Expr) -> None:
        config = self.config
        inverse, length = reciprocal(total)
        shift = held((length - int64(1 + config.bits)).astype("int32"))
        # beyond 31 every probability is below half a code
        inverse = tirx.Select(shift > 31, int32(0), inverse.astype("int32"))
        inverse = held(inverse)
        if config.factor:
            inverse = held(mulhi(inverse, int32(config.factor), self.isa))
        shift = held(tirx.min(shift, int32(31)))

        def emit(offset: Expr, width: int) -> None:
            weight = load(self.work, offset, width)
            scaled = mulhi(weight, splat(inverse, width), self.isa)
            value = rounding_shift(scaled, splat(shift, width), self.isa)
            self._store(start + offset, value, width)

        vector_loop(self.length, self.isa.lanes, emit)

    def _codes(self, start: Expr, total: Expr) -> None:
        config = self.config
        octaves = log2_wide(total, self.isa) - int32(30 << LOG2_BITS)
        row = rounding_shift(octaves, int32(LOG2_BITS - EXP2_BITS), self.isa)
        row = held(row + int32(config.code_offset))

        def emit(offset: Expr, width: int) -> None:
            exponent = load(self.work, offset, width) + splat(row, width)
            value = requantize(
                exponent,
                constant(config.code_multiplier, exponent),
                constant(config.code_shift, exponent),
                0,
                self.isa,
            )
            self._store(start + offset, value, width)

        vector_loop(self.length, self.isa.lanes, emit)

    def _store(self, offset: Expr, value: Expr, width: int) -> None:
        config = self.config
        result = saturate(value, config.qmin, config.qmax, config.dtype, config.zero_point)
        store(self.out, offset, result, width)
