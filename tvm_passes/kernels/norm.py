"""Kernel of ``layer_norm``: sums of a row, its multiplier, then one requantize per element."""

from collections.abc import Sequence
from math import prod

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import build_kernel, int32, load, splat, store
from tvm_passes.kernels.elementwise import codes
from tvm_passes.kernels.fixed_point import constant, mulhi, rounding_shift, widen
from tvm_passes.kernels.functions import held, int64, lane_sum, reciprocal_sqrt
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import vector_loop
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.norm import LayerNormConfig

BLOCK = 4096  # elements whose 16-bit squares of int8 codes add up in int32 lanes


@kernel("layer_norm")
def layer_norm(config: LayerNormConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x [..., C]."""
    out = OPERATORS["layer_norm"].infer(config, specs)
    n, dtype = config.length, specs[0].dtype
    with build_kernel([specs[0], out]) as builder:
        x, out_buf = builder.buffers
        sums = _Sums(x, n, dtype, isa)
        with T.serial(0, prod(out.shape[:-1])) as row:
            start = row * n
            total, squares = sums.emit(start)
            mean = held(tirx.floordiv(total, int64(n)))
            rest = held(total - mean * int64(n))
            spread = squares - mean * (total + rest)
            bits = int64(config.variance_bits)
            correction = tirx.floordiv((rest * rest) << bits, int64(n))
            w = held((spread << bits) - correction + int64(config.epsilon))
            multiplier, shift, left = _row_multiplier(config, w)
            fraction = tirx.floordiv(
                int64(2) * (rest << int64(config.mean_bits)) + int64(n), int64(2 * n)
            )
            centre = held(((mean << int64(config.mean_bits)) + fraction).astype("int32"))

            def emit(
                offset: Expr,
                width: int,
                start: Expr = start,
                centre: Expr = centre,
                row: tuple[Expr, Expr, Expr] = (multiplier, shift, left),
            ) -> None:
                code = widen(load(x, start + offset, width), "int32")
                fine = (code << constant(config.mean_bits, code)) - splat(centre, width)
                factor, right, pre = (splat(value, width) for value in row)
                value = rounding_shift(mulhi(fine << pre, factor, isa), right, isa)
                store(
                    out_buf,
                    start + offset,
                    codes(value, config.zero_point, config.qmin, config.qmax, config.dtype),
                    width,
                )

            vector_loop(n, isa.lanes, emit)
    return Kernel(builder.func)


def _row_multiplier(config: LayerNormConfig, w: Expr) -> tuple[Expr, Expr, Expr]:
    """``tvm_passes.ops.norm.row_multiplier`` on one row, as int32 scalars."""
    inverse, half = reciprocal_sqrt(w)
    product = held(inverse * int64(config.multiplier))
    large = held(product >> int64(61))
    multiplier = (product >> (int64(30) + large)).astype("int32")
    shift = held((half - int64(config.exponent) - large).astype("int32"))
    left = held(tirx.max(int32(1) - shift, int32(0)))
    multiplier = held(tirx.Select(shift > 31, int32(0), multiplier))
    return multiplier, held(tirx.max(tirx.min(shift, int32(31)), int32(1))), left


class _Sums:
    """Emits the sum and the sum of squares of a row.

    Lanes add up in int32 for a block of the row, then in int64: squares of int16 codes go to
    int64 at once.
    """

    def __init__(self, x: Buffer, length: int, dtype: str, isa: Isa) -> None:
        self.x, self.length, self.lanes = x, length, isa.lanes
        greatest = max(map(abs, INT_RANGE[dtype]))
        self.square_dtype = "int32" if greatest <= 255 else "int64"
        self.lane_sum = T.alloc_buffer((isa.lanes,), "int32")
        self.lane_squares = T.alloc_buffer((isa.lanes,), self.square_dtype)
        self.total = T.alloc_buffer((1,), "int64")
        self.squares = T.alloc_buffer((1,), "int64")

    def emit(self, start: Expr) -> tuple[Expr, Expr]:
        """Both sums of the row at ``start``, int64."""
        T.buffer_store(self.total, int64(0), [0])
        T.buffer_store(self.squares, int64(0), [0])
        block = BLOCK * self.lanes
        if self.length // block:
            with T.serial(0, self.length // block) as index:
                self._block(start + index * block, block)
        if self.length % block:
            self._block(start + self.length // block * block, self.length % block)
        return held(self.total[0]), held(self.squares[0])

    def _block(self, start: Expr, extent: int) -> None:
        lanes = self.lanes
        zero = tirx.const(0, self.square_dtype)
        store(self.lane_sum, 0, splat(int32(0), lanes), lanes)
        store(self.lane_squares, 0, splat(zero, lanes), lanes)

        def emit(offset: Expr, width: int) -> None:
            code = held(widen(load(self.x, start + offset, width), "int32"))
            square = widen(code * code, self.square_dtype)
            if width == lanes:
                store(self.lane_sum, 0, load(self.lane_sum, 0, lanes) + code, lanes)
                store(self.lane_squares, 0, load(self.lane_squares, 0, lanes) + square, lanes)
            else:
                self._add(code, square, width)

        vector_loop(extent, lanes, emit)
        self._add(load(self.lane_sum, 0, lanes), load(self.lane_squares, 0, lanes), lanes)

    def _add(self, codes: Expr, squares: Expr, width: int) -> None:
        for sink, vector in ((self.total, codes), (self.squares, squares)):
            T.buffer_store(sink, sink[0] + lane_sum(widen(vector, "int64"), width), [0])
