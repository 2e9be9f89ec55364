"""Rows of codes: the loop over one, and its sums."""

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import (
    lane_slice,
    lanes_of,
    load,
    native,
    splat,
    store,
)
from tvm_passes.kernels.dot import sdot
from tvm_passes.kernels.fixed_point import constant, widen
from tvm_passes.kernels.functions import held, int64, lane_sum
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import vector_loop

UNROLL = 4
BLOCK = 1 << 18  # codes whose sums of lanes fit int32


def unrolled(extent: int, lanes: int, emit: Callable[[Expr, int], None]) -> None:
    """Cover ``extent`` by whole vectors, several per turn of the loop, then by narrower ones.

    ``emit`` gets the first element and the number of lanes.
    """
    step = UNROLL * lanes
    if extent // step:
        with T.serial(0, extent // step) as index:
            for start in range(0, step, lanes):
                emit(index * step + start, lanes)
    done = extent // step * step
    vector_loop(extent - done, lanes, lambda offset, width: emit(offset + done, width))


class RowSums:
    """Emits the sum of a row and the sum of its squares.

    Sums of lanes are int32 for a block of codes. Two squares of int16 codes fit uint32; pairs of
    such sums are added up as they lie in 64 bits, modulo 2^64, and their upper halves once more.
    """

    def __init__(self, x: Buffer, isa: Isa) -> None:
        """Declare the accumulators.

        Args:
            x: flat buffer of int8, uint8 or int16 codes.
            isa: instruction set.
        """
        self.x, self.isa = x, isa
        self.lanes = max(16, isa.wide)
        self.dot = isa.dot == "sdot" and str(x.dtype) == "int8"
        quarter, half = self.lanes // 4, self.lanes // 2
        self.sums = T.alloc_buffer((quarter if self.dot else half,), "int32")
        self.squares = T.alloc_buffer((quarter,), "int32" if self.dot else "uint64")
        self.upper = T.alloc_buffer((quarter,), "uint64")
        self.total = T.alloc_buffer((1,), "int64")
        self.total_squares = T.alloc_buffer((1,), "int64")

    def emit(self, start: Expr, length: int) -> tuple[Expr, Expr]:
        """Both sums of the row at ``start``, int64."""
        T.buffer_store(self.total, int64(0), [0])
        T.buffer_store(self.total_squares, int64(0), [0])
        if length // BLOCK:
            with T.serial(0, length // BLOCK) as index:
                self._block(start + index * BLOCK, BLOCK)
        if length % BLOCK:
            self._block(start + length // BLOCK * BLOCK, length % BLOCK)
        return held(self.total[0]), held(self.total_squares[0])

    def _block(self, start: Expr, length: int) -> None:
        for buffer in (self.sums, self.squares, self.upper):
            lanes = int(buffer.shape[0])
            store(buffer, 0, splat(tirx.const(0, str(buffer.dtype)), lanes), lanes)

        def emit(offset: Expr, width: int) -> None:
            code = load(self.x, start + offset, width)
            if width < self.lanes:
                wide = widen(code, "int32")
                self._add(lane_sum(wide, width), lane_sum(widen(wide * wide, "int64"), width))
            elif self.dot:
                _accumulate_dot(self.sums, code, constant(1, code, "int8"))
                _accumulate_dot(self.squares, code, code)
            else:
                self._step(T.bind(widen(code, "int16")))

        unrolled(length, self.lanes, emit)
        if length >= self.lanes:
            self._add(_sum(self.sums), _sum(self.squares) if self.dot else self._joined())

    def _step(self, code: Expr) -> None:
        _accumulate(self.sums, pair_sums(code, self.isa))
        squares = T.reinterpret(f"uint64x{self.lanes // 4}", pair_squares(code, self.isa))
        _accumulate(self.squares, squares)
        _accumulate(self.upper, squares >> constant(32, squares, "uint64"))

    def _joined(self) -> Expr:
        """Lower halves of the sums of squares are what is left without the upper ones."""
        lanes = self.lanes // 4
        total, upper = (lane_sum(load(b, 0, lanes), lanes) for b in (self.squares, self.upper))
        upper = held(upper)
        return total - (upper << tirx.const(32, "uint64")) + upper

    def _add(self, total: Expr, squares: Expr) -> None:
        for sink, value in ((self.total, total), (self.total_squares, squares)):
            T.buffer_store(sink, sink[0] + value.astype("int64"), [0])


def _sum(buffer: Buffer) -> Expr:
    lanes = int(buffer.shape[0])
    return lane_sum(widen(load(buffer, 0, lanes), "int64"), lanes)


def _accumulate(buffer: Buffer, value: Expr) -> None:
    lanes = int(buffer.shape[0])
    store(buffer, 0, load(buffer, 0, lanes) + value, lanes)


def _accumulate_dot(buffer: Buffer, a: Expr, b: Expr) -> None:
    store(buffer, 0, sdot(load(buffer, 0, 4), a, b), 4)


def pair_sums(code: Expr, isa: Isa) -> Expr:
    """int32 sums of pairs of int16 lanes, each lane in one of them."""
    forms = {"neon": (8, _saddlp), "avx512": (32, _add_pairs)}
    result = native(isa, forms, code)
    if result is not None:
        return result
    low, high = _halves(code)
    return low + high


def pair_squares(code: Expr, isa: Isa) -> Expr:
    """uint32 sums of the squares of pairs of int16 lanes, each lane in one of them."""
    result = native(isa, {"avx512": (32, _pmaddwd)}, code, code)
    if result is not None:
        return result
    low, high = _halves(code)
    return widen(low * low, "uint32") + widen(high * high, "uint32")


def _halves(code: Expr) -> tuple[Expr, Expr]:
    half = lanes_of(code) // 2
    low, high = (widen(lane_slice(code, start, half), "int32") for start in (0, half))
    return low, high


def _saddlp(lanes: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", lanes)


def _add_pairs(lanes: Expr) -> Expr:
    return _pmaddwd(lanes, constant(1, lanes, "int16"))


def _pmaddwd(a: Expr, b: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.pmaddw.d.512", a, b)
