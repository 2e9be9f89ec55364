"""Integer functions on TIR expressions; mirrors the second half of ``tvm_passes.numerics``."""

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from tvm_passes.kernels.builder import lanes_of, load, native, store
from tvm_passes.kernels.fixed_point import constant, mulhi, mulhrs, mulhrs_add, widen
from tvm_passes.kernels.isa import Isa
from tvm_passes.numerics import (
    EXP2_BITS,
    EXP2_CODE_BITS,
    EXP2_CODE_COEFFICIENTS,
    EXP2_COEFFICIENTS,
    LOG2_BITS,
    LOG2_COEFFICIENTS,
    LOG2_WORD_BITS,
    LOG2_WORD_COEFFICIENTS,
    RSQRT_LINE,
    RSQRT_STEPS,
)


def int64(value: int) -> Expr:
    """An int64 constant."""
    return tirx.const(value, "int64")


def held(value: Expr) -> Expr:
    """``value`` by way of a local buffer, which LLVM removes again.

    TVM's simplifier looks through names, and takes seconds on a chain of products.
    """
    lanes = lanes_of(value)
    buffer = T.alloc_buffer((lanes,), str(value.ty.dtype).partition("x")[0])
    store(buffer, 0, value, lanes)
    return buffer[0] if lanes == 1 else T.bind(load(buffer, 0, lanes))


def leading_zeros(value: Expr) -> Expr:
    """Number of leading zero bits, in the type of ``value``."""
    return tirx.call_llvm_pure_intrin(
        str(value.ty.dtype), "llvm.ctlz", value, tirx.const(0, "bool")
    )


def polynomial(coefficients: tuple[int, ...], fraction: Expr, isa: Isa) -> Expr:
    """Horner's rule on Q30 coefficients and an int32 Q31 argument."""
    fraction = T.bind(fraction)
    value = constant(coefficients[-1], fraction)
    for coefficient in reversed(coefficients[:-1]):
        value = held(constant(coefficient, fraction) + mulhi(value, fraction, isa))
    return value


def exp2_negative(exponent: Expr, isa: Isa) -> Expr:
    """``2^(-exponent / 2^14)`` in Q30 of int32 expressions >= 0."""
    mask = constant((1 << EXP2_BITS) - 1, exponent)
    fraction = (exponent & mask) << constant(31 - EXP2_BITS, exponent)
    whole = tirx.min(exponent >> constant(EXP2_BITS, exponent), constant(31, exponent))
    return polynomial(EXP2_COEFFICIENTS, fraction, isa) >> whole


def exp2_codes(exponent: Expr, isa: Isa) -> Expr:
    """``numerics.exp2_codes`` of int16 expressions."""
    bits = EXP2_CODE_BITS
    whole = T.bind(_rounded_whole(exponent, isa))
    fraction = T.bind(exponent << constant(16 - bits, exponent, "int16"))
    first, *inner, curve = (constant(c, exponent, "int16") for c in EXP2_CODE_COEFFICIENTS)
    for coefficient in inner[::-1]:
        curve = T.bind(mulhrs_add(coefficient, curve, fraction, isa))
    return _scaled_code(T.bind(first + mulhrs(curve, fraction, isa)), whole, isa)  # a uint16


def _rounded_whole(exponent: Expr, isa: Isa) -> Expr:
    def shifted(part: Expr) -> Expr:
        amount = constant(-EXP2_CODE_BITS, part, "int16")
        return tirx.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.srshl.v8i16", part, amount)

    result = native(isa, {"neon": (8, shifted)}, exponent)
    if result is not None:
        return result
    half = constant(1 << (EXP2_CODE_BITS - 1), exponent, "int16")
    return (exponent + half) >> constant(EXP2_CODE_BITS, exponent, "int16")


def _scaled_code(code: Expr, whole: Expr, isa: Isa) -> Expr:
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


def log2(value: Expr, isa: Isa) -> Expr:
    """Base-2 logarithm in Q24 (int32) of positive int32 vectors or scalars."""
    zeros = T.bind(leading_zeros(value))
    fraction = (value << zeros) & constant(0x7FFFFFFF, value)
    return _log2(constant(31, value) - zeros, fraction, isa)


def log2_words(value: Expr, isa: Isa) -> Expr:
    """``numerics.log2_words`` of positive int32 vectors or scalars, to int32."""
    zeros = T.bind(leading_zeros(value))
    mantissa = (value << zeros) >> constant(16, value)
    fraction = held(widen(mantissa & constant(0x7FFF, value), "int16"))
    *inner, curve = (constant(c, fraction, "int16") for c in LOG2_WORD_COEFFICIENTS)
    for coefficient in reversed(inner):
        curve = held(mulhrs_add(coefficient, curve, fraction, isa))
    bow = held(mulhrs(fraction, fraction ^ constant(0x7FFF, fraction, "int16"), isa))
    words = held(mulhrs_add(fraction, bow, curve, isa))
    whole = constant(31, value) - zeros
    return (whole << constant(LOG2_WORD_BITS, value)) + widen(words, "int32")


def log2_wide(value: Expr, isa: Isa) -> Expr:
    """Base-2 logarithm in Q24 (int32) of a positive int64 scalar."""
    zeros = held(leading_zeros(value))
    fraction = ((value << (zeros - int64(1))) >> int64(31)) & int64(0x7FFFFFFF)
    return _log2((int64(63) - zeros).astype("int32"), fraction.astype("int32"), isa)


def _log2(whole: Expr, fraction: Expr, isa: Isa) -> Expr:
    fraction = T.bind(fraction)
    curve = mulhi(polynomial(LOG2_COEFFICIENTS, fraction, isa), fraction, isa)
    return (whole << constant(LOG2_BITS, whole)) + (curve >> constant(30 - LOG2_BITS, curve))


def reciprocal(value: Expr) -> tuple[Expr, Expr]:
    """``1 / value = multiplier / 2^(30 + bits)`` of a positive int64 scalar, both int64."""
    zeros = held(leading_zeros(value))
    divisor = (value << (zeros - int64(1))) >> int64(31)
    quotient = tirx.truncdiv(int64(1 << 62), divisor)
    return held(tirx.min(quotient, int64(2**31 - 1))), held(int64(64) - zeros)


def reciprocal_sqrt(value: Expr) -> tuple[Expr, Expr]:
    """``1 / sqrt(value) = multiplier / 2^(30 + half)`` of a positive int64 scalar, both int64."""
    half = held((int64(65) - leading_zeros(value)) >> int64(1))
    v = held((value << (int64(62) - half * int64(2))) >> int64(31))
    y = held(int64(RSQRT_LINE[0]) + ((int64(RSQRT_LINE[1]) * v) >> int64(31)))
    for _ in range(RSQRT_STEPS):
        square = (v * ((y * y) >> int64(30))) >> int64(31)
        y = held((y * (int64(3 << 30) - square)) >> int64(31))
    return held(tirx.max(tirx.min(y, int64(2**31 - 1)), int64(2**30))), half


def lane_sum(vector: Expr, lanes: int) -> Expr:
    """Sum of the lanes of an integer vector."""
    return _reduce("add", vector, lanes)


def lane_max(vector: Expr, lanes: int) -> Expr:
    """Greatest lane of a signed vector."""
    return _reduce("smax", vector, lanes)


def _reduce(name: str, vector: Expr, lanes: int) -> Expr:
    if lanes == 1:
        return vector
    scalar = str(vector.ty.dtype).partition("x")[0]
    return tirx.call_llvm_pure_intrin(scalar, f"llvm.vector.reduce.{name}", vector)
