"""Instruction sets: what a kernel generator needs to know of each, in one table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Isa:
    """One instruction set level.

    Attributes:
        name: key of ``ISAS``.
        arch: "aarch64", "x86" or "any".
        simd: vectors that kernels have instructions of their own for, "neon", "avx512" or None.
        lanes: int32 lanes of one vector register.
        wide: elements per step of the element-wise kernels: LLVM splits such vectors into
            registers, and int8 data fill theirs.
        registers: vector registers that a micro-kernel may count on.
        dot: the four-way int8 dot product into int32 lanes: "sdot" (s8 x s8), "vpdpbusd"
            (u8 x s8) or None.
        matrix: the int8 matrix product of two rows by two rows, "smmla", or None.
        fraction: the multiply-add of int16 fractions that rounds, "sqrdmlah", or None.
        mattr: LLVM target features.
        mcpu: LLVM CPU name, or None for the baseline of the architecture.
    """

    name: str
    arch: str
    simd: str | None
    lanes: int
    wide: int
    registers: int
    dot: str | None
    matrix: str | None = None
    fraction: str | None = None
    mattr: tuple[str, ...] = ()
    mcpu: str | None = None


_DOT = ("+neon", "+rdm", "+dotprod")  # dot products came a year after rounding multiply-adds
_I8MM = (*_DOT, "+i8mm")

ISAS: dict[str, Isa] = {
    isa.name: isa
    for isa in (
        Isa("neon-dotprod", "aarch64", "neon", 4, 16, 32, "sdot", None, "sqrdmlah", _DOT),
        Isa("neon-i8mm", "aarch64", "neon", 4, 16, 32, "sdot", "smmla", "sqrdmlah", _I8MM),
        Isa("neon", "aarch64", "neon", 4, 16, 32, None, mattr=("+neon",)),
        Isa("avx512vnni", "x86", "avx512", 16, 32, 32, "vpdpbusd", mcpu="icelake-server"),
        Isa("avx2", "x86", None, 8, 16, 16, None, mcpu="haswell"),
        Isa("portable", "any", None, 4, 8, 16, None),
    )
}
