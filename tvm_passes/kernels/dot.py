"""Dot and matrix products of bytes into int32 lanes, one instruction each.

Operands are registers of bytes, or of words that hold four of them.
"""

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from tvm_passes.kernels.builder import int32, lanes_of, splat
from tvm_passes.kernels.fixed_point import constant, widen
from tvm_passes.kernels.isa import Isa

WORD = 4  # bytes that one lane of a dot product multiplies
SIGN_BITS = {"int8": -0x80, "uint8": 0x80, "int32": -0x7F7F7F80}  # 0x80 in every byte


def dot(acc: Expr, a: Expr, b: Expr, isa: Isa) -> Expr:
    """``acc`` plus the sums of four products, by the dot product of ``isa``.

    ``b`` is signed, and so is ``a`` but for ``vpdpbusd``, which takes it as unsigned.
    """
    return vpdpbusd(acc, a, b) if isa.dot == "vpdpbusd" else sdot(acc, a, b)


def sdot(acc: Expr, a: Expr, b: Expr) -> Expr:
    """``acc`` int32x4 plus the sums of four products of signed bytes."""
    name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
    return tirx.call_llvm_pure_intrin("int32x4", name, acc, _bytes(a), _bytes(b))


def vpdpbusd(acc: Expr, a: Expr, b: Expr) -> Expr:
    """``acc`` int32x16 plus the sums of four products of unsigned by signed bytes."""
    name = "llvm.x86.avx512.vpdpbusd.512"
    return tirx.call_llvm_pure_intrin("int32x16", name, acc, _bytes(a, "uint8"), _bytes(b))


def smmla(acc: Expr, a: Expr, b: Expr) -> Expr:
    """``acc`` int32x4, a matrix of 2 x 2, plus the product of two rows by two rows of eight."""
    name = "llvm.aarch64.neon.smmla.v4i32.v16i8"
    return tirx.call_llvm_pure_intrin("int32x4", name, acc, _bytes(a), _bytes(b))


def exchange(first: Expr, second: Expr) -> tuple[Expr, Expr]:
    """The low halves of two int32x4, and the high ones; its own inverse.

    From two rows of four columns to two matrices of 2 x 2, and back.
    """
    low = tirx.Shuffle([first, second], list(map(int32, (0, 1, 4, 5))))
    high = tirx.Shuffle([first, second], list(map(int32, (2, 3, 6, 7))))
    return low, high


def planes(dtype: str, isa: Isa) -> int:
    """Parts of a code: two int8 planes of int16 codes for the dot products, else one."""
    return 2 if isa.dot and dtype == "int16" else 1


def split_planes(code: Expr) -> tuple[Expr, Expr]:
    """The int8 planes of int16 codes: ``256 * high + low`` is the code minus 128."""
    high = code >> constant(8, code, "int16")
    return widen(high, "int8"), widen(code ^ constant(128, code, "int16"), "int8")


def join_planes(high: Expr, low: Expr) -> Expr:
    """``256 * high + low`` of int32 sums, modulo ``2^32`` in uint32.

    The sum of one plane may exceed int32 where the whole does not.
    """
    high = widen(high, "uint32")
    return widen(low, "uint32") + (high << constant(8, high, "uint32"))


def flip_signs(value: Expr) -> Expr:
    """From signed bytes to unsigned ones that are greater by 128, and back."""
    dtype = str(value.ty.dtype).partition("x")[0]
    return value ^ splat(tirx.const(SIGN_BITS[dtype], dtype), lanes_of(value))


def _bytes(value: Expr, dtype: str = "int8") -> Expr:
    source, _, lanes = str(value.ty.dtype).partition("x")
    if source == dtype:
        return value
    return T.reinterpret(f"{dtype}x{int(lanes) * (WORD if source == 'int32' else 1)}", value)
