"""The integer contract on TIR expressions, scalar or vector; mirrors ``tvm_passes.numerics``.

Vectors may be wider than a register: what maps to one instruction is applied register by register.
"""

from functools import partial

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from tvm_passes.kernels.builder import lanes_of, named, native
from tvm_passes.kernels.isa import Isa
from tvm_passes.numerics import INT_RANGE


def _like(dtype: str, expr: Expr) -> str:
    """``dtype`` with as many lanes as ``expr``."""
    lanes = str(expr.ty.dtype).partition("x")[2]
    return f"{dtype}x{lanes}" if lanes else dtype


def constant(value: int, expr: Expr, dtype: str = "int32") -> Expr:
    """``value`` with as many lanes as ``expr``."""
    scalar = tirx.const(value, dtype)
    lanes = str(expr.ty.dtype).partition("x")[2]
    return tirx.Broadcast(scalar, int(lanes)) if lanes else scalar


def widen(expr: Expr, dtype: str) -> Expr:
    """Cast to ``dtype``, keeping the number of lanes."""
    return expr.astype(_like(dtype, expr))


def mulhi(acc: Expr, multiplier: Expr, isa: Isa) -> Expr:
    """``floor(acc * multiplier / 2^31)`` of int32 expressions."""
    forms = {"neon": (4, _sqdmulh), "avx512": (16, _even_odd_mulhi)}
    result = native(isa, forms, acc, multiplier)
    if result is not None:
        return result
    product = widen(acc, "int64") * widen(multiplier, "int64")
    return widen(product >> constant(31, product, "int64"), "int32")


def _sqdmulh(acc: Expr, multiplier: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.sqdmulh.v4i32", acc, multiplier)


def _even_odd_mulhi(acc: Expr, multiplier: Expr) -> Expr:
    return _even_odd(acc, multiplier, 0)


def _even_odd_rescale(acc: Expr, multiplier: Expr) -> Expr:
    return _even_odd(acc, multiplier, 1 << 30)


def _even_odd(acc: Expr, multiplier: Expr, rounding: int) -> Expr:
    """``(acc * multiplier + rounding) >> 31`` of 16 lanes.

    Even and odd lanes by ``vpmuldq``, whose results are merged by a mask of dwords.
    """

    def high(value: Expr) -> Expr:
        return value >> constant(32, value, "int64")

    def low(value: Expr) -> Expr:
        return high(value << constant(32, value, "int64"))

    a = T.bind(T.reinterpret("int64x8", acc))
    b = T.bind(T.reinterpret("int64x8", multiplier))
    half = constant(rounding, a, "int64")
    even = (low(a) * low(b) + half) >> constant(31, a, "int64")
    odd = (high(a) * high(b) + half) << constant(1, a, "int64")
    pairs = [
        lane + (16 if lane % 2 else 0) for lane in range(16)
    ]  # even dwords of the first, odd ones of the second
    return tirx.Shuffle(
        [T.reinterpret("int32x16", even), T.reinterpret("int32x16", odd)],
        [tirx.const(lane, "int32") for lane in pairs],
    )


def rounding_shift(value: Expr, shift: Expr, isa: Isa) -> Expr:
    """``floor((value + 2^(shift-1)) / 2^shift)`` of int32 expressions, shift >= 1.

    Written without a wider type: the bit below the cut is the carry.
    """
    result = native(isa, {"neon": (4, _srshl)}, value, shift)
    if result is not None:
        return result
    one = constant(1, value)
    value = named(value) if str(value.ty.dtype) != "int32" else value  # scalars: see ``held``
    return (value >> shift) + ((value >> (shift - one)) & one)


def _srshl(value: Expr, shift: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(
        "int32x4", "llvm.aarch64.neon.srshl.v4i32", value, constant(0, value) - shift
    )


def rescale(acc: Expr, multiplier: Expr, left: int, isa: Isa) -> Expr:
    """``numerics.rescale`` of int32 accumulators, to int32."""
    if left:
        acc = acc << constant(left, acc)
    forms = {"neon": (4, _sqrdmulh), "avx512": (16, _even_odd_rescale)}
    result = native(isa, forms, acc, multiplier)
    if result is not None:
        return result
    product = widen(acc, "int64") * widen(multiplier, "int64")
    half = constant(1 << 30, product, "int64")
    return widen((product + half) >> constant(31, product, "int64"), "int32")


def _sqrdmulh(acc: Expr, multiplier: Expr) -> Expr:
    name = "llvm.aarch64.neon.sqrdmulh.v4i32"
    return tirx.call_llvm_pure_intrin("int32x4", name, acc, multiplier)


def requantize(acc: Expr, multiplier: Expr, shift: Expr, left: int, isa: Isa) -> Expr:
    """Scale int32 accumulators by a fixed-point multiplier, rounding half up, to int32."""
    shifted = acc << constant(left, acc) if left else acc
    return rounding_shift(mulhi(shifted, multiplier, isa), shift, isa)


def clamp(value: Expr, low: int, high: int, dtype: str) -> Expr:
    """Clamp an expression of ``dtype``; what its type guarantees is left out."""
    lowest, highest = INT_RANGE[dtype]
    if high < highest:
        value = tirx.min(value, constant(high, value, dtype))
    return tirx.max(value, constant(low, value, dtype)) if low > lowest else value


def narrow(value: Expr, dtype: str) -> Expr:
    """Saturate an int32 or int16 expression to ``dtype``: one instruction where the ISA has it."""
    source = str(value.ty.dtype).partition("x")[0]
    return value if source == dtype else widen(clamp(value, *INT_RANGE[dtype], source), dtype)


def saturate(value: Expr, qmin: int, qmax: int, dtype: str, zero_point: int = 0) -> Expr:
    """Codes of int32 values: add the zero point, clamp to ``[qmin, qmax]``, narrow to ``dtype``.

    Narrowing comes first, because it saturates for free: an int16 plus the small zero point of
    8-bit codes saturates where the int32 would.
    """
    if dtype == "int32" or (zero_point and INT_RANGE[dtype][1] > 255):
        value = saturating_add(value, constant(zero_point, value)) if zero_point else value
        zero_point = 0
    codes = value if dtype == "int32" else narrow(value, "int16")
    if zero_point:
        codes = saturating_add(codes, constant(zero_point, codes, "int16"))
    codes = narrow(codes, dtype)
    return clamp(codes, qmin, qmax, dtype)


def mulhrs(a: Expr, b: Expr, isa: Isa) -> Expr:
    """``(a * b + 2^14) >> 15`` of int16 expressions that are not both -2^15."""
    result = native(isa, {"neon": (8, _sqrdmulh_words), "avx512": (32, _vpmulhrsw)}, a, b)
    if result is not None:
        return result
    product = widen(a, "int32") * widen(b, "int32")
    return widen((product + constant(1 << 14, product)) >> constant(15, product), "int16")


def _sqrdmulh_words(a: Expr, b: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.sqrdmulh.v8i16", a, b)


def _vpmulhrsw(a: Expr, b: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin("int16x32", "llvm.x86.avx512.pmul.hr.sw.512", a, b)


def rescale_words(x: Expr, multiplier: Expr, left: int, shift: int, isa: Isa) -> Expr:
    """``numerics.rescale_words`` of int16 expressions."""
    value = mulhrs(saturating_shift_left(x, left, isa), multiplier, isa)
    return rounding_shift_words(value, shift, isa)


def mulhrs_add(total: Expr, a: Expr, b: Expr, isa: Isa) -> Expr:
    """``total + mulhrs(a, b)`` of int16 expressions, clamped to their range."""
    forms = {"neon": (8, _sqrdmlah)} if isa.fraction else {}
    result = native(isa, forms, total, a, b)
    if result is not None:
        return result
    return saturating_add(total, mulhrs(a, b, isa))


def _sqrdmlah(total: Expr, a: Expr, b: Expr) -> Expr:
    name = "llvm.aarch64.neon.sqrdmlah.v8i16"
    return tirx.call_llvm_pure_intrin("int16x8", name, total, a, b)


def saturating_add(a: Expr, b: Expr) -> Expr:
    """``a + b`` of integers of the same type, clamped to its range."""
    return tirx.call_llvm_pure_intrin(str(a.ty.dtype), "llvm.sadd.sat", a, b)


def saturating_subtract(a: Expr, b: Expr) -> Expr:
    """``a - b`` of integers of the same type, clamped to its range."""
    return tirx.call_llvm_pure_intrin(str(a.ty.dtype), "llvm.ssub.sat", a, b)


def saturating_shift_left(value: Expr, left: int, isa: Isa) -> Expr:
    """``value << left`` of int16 lanes, clamped to their range."""
    if not left:
        return value
    # LLVM takes its generic intrinsic lane by lane on NEON
    result = native(isa, {"neon": (8, partial(_sqshl, left))}, value)
    if result is not None:
        return result
    shift = constant(left, value, "int16")
    return tirx.call_llvm_pure_intrin(str(value.ty.dtype), "llvm.sshl.sat", value, shift)


def _sqshl(left: int, value: Expr) -> Expr:
    name, shift = "llvm.aarch64.neon.sqshl.v8i16", constant(left, value, "int16")
    return tirx.call_llvm_pure_intrin("int16x8", name, value, shift)


def rounding_shift_narrow(value: Expr, shift: int, dtype: str, isa: Isa) -> Expr:
    """``rounding_shift``, saturated: int32 to int16, or int16 by 1 to 8 bits to int8 or uint8."""
    if str(value.ty.dtype).startswith("int32"):
        forms = {"neon": (4, partial(_sqrshrn, shift, dtype))} if shift <= 16 else {}
        result = native(isa, forms, value)
        if result is not None:
            return result
        return narrow(rounding_shift(value, constant(shift, value), isa), dtype)
    result = native(isa, {"neon": (8, partial(_sqrshrn, shift, dtype))}, value)
    if result is not None:
        return result
    return narrow(rounding_shift_words(value, shift, isa), dtype)


def rounding_shift_words(value: Expr, shift: int, isa: Isa) -> Expr:
    """``rounding_shift`` of int16 expressions by 1 to 15 bits."""
    result = native(isa, {"neon": (8, partial(_srshl_words, shift))}, value)
    if result is not None:
        return result
    factor = constant(1 << (15 - shift), value, "int16")
    result = native(isa, {"avx512": (32, _vpmulhrsw)}, value, factor)
    if result is not None:
        return result
    value = named(value)
    right, one = constant(shift, value, "int16"), constant(1, value, "int16")
    return (value >> right) + ((value >> (right - one)) & one)


def _srshl_words(shift: int, value: Expr) -> Expr:
    name, right = "llvm.aarch64.neon.srshl.v8i16", constant(-shift, value, "int16")
    return tirx.call_llvm_pure_intrin("int16x8", name, value, right)


def _sqrshrn(shift: int, dtype: str, value: Expr) -> Expr:
    lanes = lanes_of(value)
    name = "sqrshrun" if dtype == "uint8" else "sqrshrn"
    kind = f"v{lanes}i{dtype.removeprefix('u').removeprefix('int')}"
    return tirx.call_llvm_pure_intrin(
        f"{dtype}x{lanes}", f"llvm.aarch64.neon.{name}.{kind}", value, tirx.const(shift, "int32")
    )
