"""The weights of ``attention``: from a row of logits to the codes that multiply v."""

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

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
    mulhrs,
    mulhrs_add,
    narrow,
    rounding_shift_narrow,
    saturating_shift_left,
    widen,
)
from tvm_passes.kernels.functions import lane_sum
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import vector_loop
from tvm_passes.kernels.panel import CHUNK, Rows
from tvm_passes.numerics import EXP2_CODE_BITS, EXP2_CODE_COEFFICIENTS
from tvm_passes.ops.attention import AttentionConfig


def emit_weights(
    config: AttentionConfig,
    logits: Rows,
    row: Expr,
    greatest: Expr,
    padded: int,
    codes: Rows,
    sums: Buffer,
    isa: Isa,
) -> Expr:
    """Write the codes of one row; return their sum.

    Args:
        config: the operator's.
        logits: int32.
        row: which of them.
        greatest: its greatest logit, int32.
        padded: its length, a multiple of 8; of 32 with AVX-512.
        codes: where the codes go: high and low int8 planes in turn, or int16.
        sums: room for ``isa.lanes`` int32.
        isa: instruction set.
    """
    lanes = isa.lanes
    store(sums, 0, splat(int32(0), lanes), lanes)

    def emit(offset: Expr, width: int) -> None:
        step = min(width, isa.wide)
        for start in range(0, width, step):
            part(offset + start, step)

    def part(offset: Expr, width: int) -> None:
        size = min(width, CHUNK)
        parts = [
            load(logits.buffer, logits.at(row, offset + start), size)
            for start in range(0, width, size)
        ]
        distance = T.bind(join(parts) - splat(greatest, width))
        weights = T.bind(exp2_codes(T.bind(_octaves(distance, config, isa)), isa))
        store(sums, 0, _accumulated(load(sums, 0, lanes), weights, isa), lanes)
        planes = [weights]
        if isa.dot:
            planes = [T.bind(_high_bytes(weights, isa)), T.bind(widen(weights, "int8"))]
        for index, plane in enumerate(planes):
            codes.put(row * len(planes) + index, offset, plane)

    vector_loop(padded, 4 * isa.wide, emit)
    return lane_sum(load(sums, 0, lanes), lanes)


def _octaves(distance: Expr, config: AttentionConfig, isa: Isa) -> Expr:
    """int32 distances <= 0 to int16 octaves in Q10."""
    right = constant(config.right, distance)
    if not config.right:
        steps = narrow(distance, "int16")
    elif isa.simd == "neon":
        steps = rounding_shift_narrow(distance, config.right, "int16", isa)
    else:  # what rounds a distance cannot overflow
        half = constant(1 << (config.right - 1), distance)
        steps = narrow((distance + half) >> right, "int16")
    steps = saturating_shift_left(T.bind(steps), config.left, isa)
    return mulhrs(steps, constant(config.logit_multiplier, steps, "int16"), isa)


def exp2_codes(exponent: Expr, isa: Isa) -> Expr:
    """``numerics.exp2_codes`` of int16 expressions."""
    bits = EXP2_CODE_BITS
    whole = T.bind(_rounded_whole(exponent, isa))
    fraction = T.bind(exponent << constant(16 - bits, exponent, "int16"))
    first, *inner, curve = (constant(c, exponent, "int16") for c in EXP2_CODE_COEFFICIENTS)
    for coefficient in inner[::-1]:
        curve = T.bind(mulhrs_add(coefficient, curve, fraction, isa))
    return _scaled(T.bind(first + mulhrs(curve, fraction, isa)), whole, isa)  # a uint16


def _rounded_whole(exponent: Expr, isa: Isa) -> Expr:
    def shifted(part: Expr) -> Expr:
        amount = constant(-EXP2_CODE_BITS, part, "int16")
        return tirx.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.srshl.v8i16", part, amount)

    result = native(isa, {"neon": (8, shifted)}, exponent)
    if result is not None:
        return result
    half = constant(1 << (EXP2_CODE_BITS - 1), exponent, "int16")
    return (exponent + half) >> constant(EXP2_CODE_BITS, exponent, "int16")


def _scaled(code: Expr, whole: Expr, isa: Isa) -> Expr:
    """uint16 ``code`` times ``2^whole``, rounded, for ``whole`` in [-32, 0]."""

    def shift_register(part: Expr, amount: Expr) -> Expr:
        return tirx.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.urshl.v8i16", part, amount)

    def shift_words(part: Expr, amount: Expr) -> Expr:
        right = constant(0, amount, "int16") - amount
        one = constant(1, amount, "int16")

        def down(by: Expr) -> Expr:
            name = "llvm.x86.avx512.psrlv.w.512"  # 0 for shifts of 16 and more
            return tirx.call_llvm_pure_intrin("int16x32", name, part, by)

        return down(right) + (down(right - one) & one)

    result = native(isa, {"neon": (8, shift_register), "avx512": (32, shift_words)}, code, whole)
    if result is not None:
        return result
    doubled = widen(widen(code, "uint16"), "int32") << constant(1, code)
    right = tirx.min(constant(0, code) - widen(whole, "int32"), constant(31, code))
    one = constant(1, code)
    return widen(((doubled >> right) + one) >> one, "int16")


def _accumulated(sums: Expr, codes: Expr, isa: Isa) -> Expr:
    """``sums`` plus all codes, in any order."""

    def pairs(part: Expr) -> Expr:
        return tirx.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.uaddlp.v4i32.v8i16", part)

    def multiply_add(part: Expr) -> Expr:
        ones = constant(1, part, "int16")
        return tirx.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.pmaddw.d.512", part, ones)

    wide = native(isa, {"neon": (8, pairs), "avx512": (32, multiply_add)}, codes)
    if wide is None:
        wide = widen(codes, "int32")
    wide = T.bind(wide)
    for start in range(0, lanes_of(wide), lanes_of(sums)):
        sums = sums + lane_slice(wide, start, lanes_of(sums))
    return sums


def _high_bytes(codes: Expr, isa: Isa) -> Expr:
    """``(code + 128) >> 8`` as int8, so that the low bytes are signed."""

    def narrowed(part: Expr) -> Expr:
        return tirx.call_llvm_pure_intrin("int8x8", "llvm.aarch64.neon.rshrn.v8i8", part, int32(8))

    result = native(isa, {"neon": (8, narrowed)}, codes)
    if result is not None:
        return result
    rounded = codes + constant(128, codes, "int16")
    return widen(rounded >> constant(8, codes, "int16"), "int8")
