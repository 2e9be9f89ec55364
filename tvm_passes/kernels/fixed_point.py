"""The integer contract on TIR expressions, scalar or vector; mirrors ``tvm_passes.numerics``."""

from tvm import tirx
from tvm.ir import Expr

from tvm_passes.kernels.isa import Isa


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
    if isa.arch == "aarch64" and str(acc.ty.dtype) == "int32x4":
        return tirx.call_llvm_pure_intrin(
            "int32x4", "llvm.aarch64.neon.sqdmulh.v4i32", acc, multiplier
        )
    product = widen(acc, "int64") * widen(multiplier, "int64")
    return widen(product >> constant(31, product, "int64"), "int32")


def rounding_shift(value: Expr, shift: Expr, isa: Isa) -> Expr:
    """``floor((value + 2^(shift-1)) / 2^shift)`` of int32 expressions, shift >= 1.

    Written without a wider type: the bit below the cut is the carry.
    """
    if isa.arch == "aarch64" and str(value.ty.dtype) == "int32x4":
        return tirx.call_llvm_pure_intrin(
            "int32x4", "llvm.aarch64.neon.srshl.v4i32", value, constant(0, value) - shift
        )
    one = constant(1, value)
    return (value >> shift) + ((value >> (shift - one)) & one)


def requantize(acc: Expr, multiplier: Expr, shift: Expr, left: int, isa: Isa) -> Expr:
    """Scale int32 accumulators by a fixed-point multiplier, rounding half up, to int32."""
    shifted = acc << constant(left, acc) if left else acc
    return rounding_shift(mulhi(shifted, multiplier, isa), shift, isa)


def saturate(value: Expr, qmin: int, qmax: int, dtype: str) -> Expr:
    """Clamp an int32 expression to ``[qmin, qmax]`` and narrow it to ``dtype``."""
    clamped = tirx.max(tirx.min(value, constant(qmax, value)), constant(qmin, value))
    return widen(clamped, dtype)
