"""The weights of ``attention``: from a row of logits to the codes that multiply v."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from tvm_passes.kernels.builder import (
    int32,
    join,
    lane_slice,
    lanes_of,
    load,
    native,
    splat,
    store,
)
from tvm_passes.kernels.fixed_point import (
    constant,
    mulhi,
    mulhrs,
    narrow,
    rounding_shift,
    rounding_shift_narrow,
    saturate,
    saturating_shift_left,
    widen,
)
from tvm_passes.kernels.functions import exp2_codes, held, lane_sum, leading_zeros
from tvm_passes.kernels.heads import HeadValue, filled, of_head, shifted_left
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import vector_loop
from tvm_passes.kernels.panel import CHUNK, Rows
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.attention import INVERSE_BITS, SHORT_ROW, SUM_BITS, AttentionConfig
from tvm_passes.ops.heads import PerHead


@dataclass(frozen=True)
class LogitRow:
    """The logits of one query, and where the codes that multiply v go.

    Attributes:
        logits: int32 rows.
        row: which of them.
        greatest: its greatest logit, int32.
        padded: its length, a multiple of 8; of 32 with AVX-512.
        codes: rows of codes: high and low int8 planes in turn, or int16.
        isa: instruction set.
    """

    logits: Rows
    row: Expr
    greatest: Expr
    padded: int
    codes: Rows
    isa: Isa

    def for_distances(self, use: Callable[[Expr, Expr], None]) -> None:
        """Emit the loop over the row; ``use`` gets an offset and distances from the greatest."""
        self.for_logits(
            lambda offset, x: use(offset, T.bind(x - splat(self.greatest, lanes_of(x))))
        )

    def for_logits(self, use: Callable[[Expr, Expr], None]) -> None:
        """Emit the loop over the row; ``use`` gets an offset and logits."""

        def part(offset: Expr, width: int) -> None:
            size = min(width, CHUNK)
            parts = [
                load(self.logits.buffer, self.logits.at(self.row, offset + start), size)
                for start in range(0, width, size)
            ]
            use(offset, join(parts))

        def emit(offset: Expr, width: int) -> None:
            step = min(width, self.isa.wide)
            for start in range(0, width, step):
                part(offset + start, step)

        vector_loop(self.padded, 4 * self.isa.wide, emit)

    def put(self, offset: Expr, planes: Sequence[Expr]) -> None:
        """Store codes, plane by plane."""
        for index, plane in enumerate(planes):
            self.codes.put(self.row * len(planes) + index, offset, plane)


class CodeSum:
    """The sum of int16 codes, lane by lane."""

    def __init__(self, isa: Isa) -> None:
        """Declare it; its value is undefined."""
        self.isa = isa
        self.lanes = T.alloc_buffer((isa.lanes,), "int32")

    def clear(self) -> None:
        """Begin anew."""
        store(self.lanes, 0, splat(int32(0), self.isa.lanes), self.isa.lanes)

    def add(self, codes: Expr) -> None:
        """Add the lanes of a vector, in any order."""

        def pairs(part: Expr) -> Expr:
            name = "llvm.aarch64.neon.uaddlp.v4i32.v8i16"
            return tirx.call_llvm_pure_intrin("int32x4", name, part)

        def multiply_add(part: Expr) -> Expr:
            name, ones = "llvm.x86.avx512.pmaddw.d.512", constant(1, part, "int16")
            return tirx.call_llvm_pure_intrin("int32x16", name, part, ones)

        wide = native(self.isa, {"neon": (8, pairs), "avx512": (32, multiply_add)}, codes)
        wide = T.bind(widen(codes, "int32") if wide is None else wide)
        each = self.isa.lanes
        total = load(self.lanes, 0, each)
        for start in range(0, lanes_of(wide), each):
            total = total + lane_slice(wide, start, each)
        store(self.lanes, 0, total, each)

    def get(self) -> Expr:
        """The sum, int32."""
        return held(lane_sum(load(self.lanes, 0, self.isa.lanes), self.isa.lanes))


class SoftmaxWeights:
    """Weights ``exp2_codes``; the mean of v is divided by their sum at the end."""

    base = 0  # see ``UniformWeights``

    def __init__(
        self, config: AttentionConfig, head: Expr, shape: tuple[int, int], isa: Isa
    ) -> None:
        """Declare what is kept of the queries of a head; ``shape`` is their number and N."""
        rows, self.keys = shape
        self.config, self.isa = config, isa
        self.octaves = DistanceFactor.of(config.right, config.left, config.logit_multiplier, head)
        self.multiplier = of_head(config.multiplier, head)
        self.output_shift = of_head(config.shift, head)
        self.total = CodeSum(isa)
        self.inverse = T.alloc_buffer((rows,), "int32")
        self.shift = T.alloc_buffer((rows,), "int32")

    def emit(self, line: LogitRow) -> Expr:
        """Write the codes of one query; return their sum, int32."""
        config, isa = self.config, self.isa
        shift = self._row_shift(line) if self.keys > SHORT_ROW else None
        self.total.clear()

        def use(offset: Expr, distance: Expr) -> None:
            weights = self._codes(distance)
            if shift is not None:
                weights = T.bind(_rounded(weights, shift))
            self.total.add(weights)
            planes = [weights]
            if isa.dot:
                planes = [T.bind(_high_bytes(weights, isa)), T.bind(widen(weights, "int8"))]
            line.put(offset, planes)

        line.for_distances(use)
        total = self.total.get()
        scale = shifted_left(self.multiplier, INVERSE_BITS)
        inverse = held(tirx.truncdiv(scale, total.astype("int64")).astype("int32"))
        T.buffer_store(self.inverse, inverse, [line.row])
        shift = mulhi(total * int32(-config.zero_v), inverse, isa)
        T.buffer_store(self.shift, shift, [line.row])
        return total

    def _codes(self, distance: Expr) -> Expr:
        return T.bind(exp2_codes(T.bind(self.octaves.steps(distance, self.isa)), self.isa))

    def _row_shift(self, line: LogitRow) -> Expr:
        """``ops.attention.row_shift``, int16, from a first pass over the row."""
        self.total.clear()
        line.for_distances(lambda offset, distance: self.total.add(self._codes(distance)))
        excess = int32(32 - SUM_BITS) - leading_zeros(self.total.get())
        return held(tirx.max(excess, int32(0)).astype("int16"))

    def finish(self, value: Expr, row: Expr) -> Expr:
        """Output codes of int32 sums of one query."""
        config, lanes = self.config, lanes_of(value)
        value = mulhi(value, splat(self.inverse[row], lanes), self.isa)
        if config.zero_v:
            value = value + splat(self.shift[row], lanes)
        value = rounding_shift(T.bind(value), filled(self.output_shift, value), self.isa)
        return saturate(value, config.qmin, config.qmax, config.dtype, config.zero_point)


def _rounded(weights: Expr, shift: Expr) -> Expr:
    """int16 codes divided by ``2^shift``: no sum with the rounding constant exceeds 32767."""
    lanes, one = lanes_of(weights), tirx.const(1, "int16")
    half = held((one << shift) >> one)
    return (weights + splat(half, lanes)) >> splat(shift, lanes)


@dataclass(frozen=True)
class DistanceFactor:
    """``ops.attention.distance_factor`` of a head."""

    right: HeadValue
    left: HeadValue
    m: HeadValue

    @classmethod
    def of(cls, right: PerHead, left: PerHead, m: PerHead, head: Expr) -> "DistanceFactor":
        """That of one of the heads."""
        return cls(of_head(right, head), of_head(left, head), of_head(m, head))

    def steps(self, distance: Expr, isa: Isa) -> Expr:
        """``ops.attention.scaled_distance`` of int32 expressions, to int16."""
        steps = self._shifted(distance, isa)
        return mulhrs(steps, filled(self.m, steps, "int16"), isa)

    def _shifted(self, distance: Expr, isa: Isa) -> Expr:
        right, left = self.right, self.left
        if not isinstance(right, int) or not isinstance(left, int):
            return T.bind(narrow(_shifted_by(distance, right, left, isa), "int16"))
        if not right:
            steps = narrow(distance, "int16")
        elif isa.simd == "neon":
            steps = rounding_shift_narrow(distance, right, "int16", isa)
        else:  # what rounds a distance cannot overflow
            half = constant(1 << (right - 1), distance)
            steps = narrow((distance + half) >> constant(right, distance), "int16")
        return saturating_shift_left(T.bind(steps), left, isa)


def _shifted_by(distance: Expr, right: HeadValue, left: HeadValue, isa: Isa) -> Expr:
    """Distances <= 0 shifted by what is known at run time, not yet clamped to int16."""
    result = native(isa, {"neon": (4, _sqrshl)}, distance, filled(left - right, distance))
    if result is not None:
        return result
    low = int32(INT_RANGE["int16"][0])
    half = (int32(1) << right) >> int32(1)
    steps = (distance + filled(half, distance)) >> filled(right, distance)
    return tirx.max(steps, filled(low >> left, distance)) << filled(left, distance)


def _sqrshl(value: Expr, left: Expr) -> Expr:
    name = "llvm.aarch64.neon.sqrshl.v4i32"
    return tirx.call_llvm_pure_intrin("int32x4", name, value, left)


def _high_bytes(codes: Expr, isa: Isa) -> Expr:
    """``(code + 128) >> 8`` as int8, so that the low bytes are signed."""

    def narrowed(part: Expr) -> Expr:
        return tirx.call_llvm_pure_intrin("int8x8", "llvm.aarch64.neon.rshrn.v8i8", part, int32(8))

    result = native(isa, {"neon": (8, narrowed)}, codes)
    if result is not None:
        return result
    rounded = codes + constant(128, codes, "int16")
    return widen(rounded >> constant(8, codes, "int16"), "int8")
