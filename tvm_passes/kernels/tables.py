"""Lookups of many lanes at once in tables that stay in registers.

NEON's ``tbl`` looks up bytes in 64 bytes, AVX-512's ``vpermi2w`` words in 64 words and ``vpermi2b``
bytes in 128 bytes. Other ISAs gather.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import by_register, int32, join, lane_slice, lanes_of, load, splat
from tvm_passes.kernels.fixed_point import clamp, constant, saturating_shift_left, widen
from tvm_passes.kernels.isa import Isa

CODES = 256  # 8-bit ones
BLOCK = 64  # entries of one NEON lookup, and of one lookup of words in AVX-512


def split_planes(table: NDArray[np.int16]) -> NDArray[np.int8]:
    """Low bytes, then high bytes: what NEON looks up."""
    return np.concatenate([table.view(np.int8)[0::2], table.view(np.int8)[1::2]])


def pack_words(tables: Sequence[NDArray[Any]], isa: Isa) -> Sequence[NDArray[Any]]:
    """Tables of the segments of an axis around zero, as ``lookup_words`` wants them.

    The upper half comes first: the entry of a segment is its number as an unsigned one.
    """
    rolled = [np.roll(table, table.size // 2) for table in tables]
    return [split_planes(table) for table in rolled] if isa.arch == "aarch64" else rolled


def lookup_words(
    tables: Sequence[Buffer], x: Expr, width: int, entries: int, isa: Isa
) -> list[Expr]:
    """int16 entries of several tables for the segments in which codes lie.

    Args:
        tables: of ``entries`` words each, packed by ``pack_words``.
        x: int16 lanes.
        width: a segment has ``2^width`` codes; the outermost extend to the ends of the axis.
        entries: 64 or 128.
        isa: instruction set.
    """
    lanes, bits = lanes_of(x), entries.bit_length() - 1
    top = _segment_on_top(x, 16 - bits - width, isa)  # in the uppermost bits
    if isa.arch == "aarch64" and lanes % 8 == 0:
        order = [int32(lane) for lane in range(1, 2 * lanes, 2)]
        bytes_ = tirx.Shuffle([T.reinterpret(f"uint8x{2 * lanes}", top)], order)
        index = T.bind(bytes_ >> constant(8 - bits, bytes_, "uint8"))
        return [_words_by_bytes(table, index, entries) for table in tables]
    index = widen(top, "uint16") >> constant(16 - bits, top, "uint16")
    if isa.simd == "avx512" and lanes in (16, 32, 64):
        index = T.bind(widen(index, "int16"))
        whole = T.bind(index if lanes >= 32 else join([index, index]))
        found = [_permuted_words(table, whole, entries) for table in tables]
        return [T.bind(lane_slice(words, 0, lanes)) for words in found]
    wide = widen(index, "int32")
    if isa.arch == "aarch64":  # planes of bytes
        return [
            widen(widen(table[wide], "uint8"), "int16")
            | (widen(table[wide + constant(entries, wide)], "int16") << constant(8, x, "int16"))
            for table in tables
        ]
    return [table[wide] for table in tables]


def _segment_on_top(x: Expr, left: int, isa: Isa) -> Expr:
    """``x << left``, clamped so that the uppermost bits are those of the outermost segments."""
    if not left:
        return x
    if isa.arch == "aarch64":
        return T.bind(saturating_shift_left(x, left, isa))
    inside = clamp(x, -32768 >> left, 32767 >> left, "int16")
    return inside << constant(left, x, "int16")


def _words_by_bytes(table: Buffer, index: Expr, entries: int) -> Expr:
    low, high = (_bytes(table, plane * entries, index, entries) for plane in range(2))
    return _zipped(low, high, "int16")


def _zipped(low: Expr, high: Expr, dtype: str) -> Expr:
    """Lanes of twice the width, of their low and high halves."""
    lanes = lanes_of(low)
    order = [int32(lane // 2 + (lanes if lane % 2 else 0)) for lane in range(2 * lanes)]
    return T.bind(T.reinterpret(f"{dtype}x{lanes}", tirx.Shuffle([low, high], order)))


def _bytes(table: Buffer, first: int, index: Expr, entries: int) -> Expr:
    """``table[first + index]`` for unsigned bytes below ``entries``, a multiple of 64."""

    def block(number: int) -> list[Expr]:
        start = first + number * BLOCK
        return [load(table, start + part * 16, 16) for part in range(4)]

    def piece(bytes_: Expr) -> Expr:
        lanes = lanes_of(bytes_)
        kind, suffix = f"int8x{lanes}", f"v{lanes}i8"
        at = T.reinterpret(kind, bytes_)
        found = tirx.call_llvm_pure_intrin(kind, f"llvm.aarch64.neon.tbl4.{suffix}", *block(0), at)
        for number in range(1, entries // BLOCK):  # out of range keeps what was found
            at = at - constant(BLOCK, at, "int8")
            found = tirx.call_llvm_pure_intrin(
                kind, f"llvm.aarch64.neon.tbx4.{suffix}", found, *block(number), at
            )
        return found

    result = by_register(16, piece, index)
    if result is None:
        result = by_register(8, piece, index)
    assert result is not None
    return T.bind(result)


def _permuted_words(table: Buffer, index: Expr, entries: int, first: int = 0) -> Expr:
    def piece(words: Expr) -> Expr:
        found = [
            tirx.call_llvm_pure_intrin(
                "int16x32",
                "llvm.x86.avx512.vpermi2var.hi.512",
                load(table, start, 32),
                words,
                load(table, start + 32, 32),
            )
            for start in range(first, first + entries, BLOCK)
        ]
        result = found.pop()
        while found:
            end = splat(tirx.const(len(found) * BLOCK, "int16"), 32)
            result = tirx.Select(words < end, found.pop(), result)
        return result

    result = by_register(32, piece, index)
    assert result is not None
    return result


def pack_lines(
    slopes: NDArray[np.int16], bases: NDArray[np.int32], isa: Isa
) -> Sequence[NDArray[Any]]:
    """Slopes and bases as ``lookup_lines`` wants them; as they are where it is not available."""
    if isa.simd != "avx512":
        return slopes, bases
    first, second = pack_words([slopes, bases], isa)
    return first, np.concatenate([second.view(np.int16)[0::2], second.view(np.int16)[1::2]])


def lookup_lines(slopes: Buffer, bases: Buffer, segment: Expr) -> tuple[Expr, Expr] | None:
    """int16 slope and int32 base of segments, from registers of AVX-512 words.

    Args:
        slopes: packed by ``pack_lines``, 64 words or a multiple of it.
        bases: likewise.
        segment: int16 lanes, numbers of segments around zero.

    Returns:
        None where the lanes fill no register.
    """
    lanes, entries = lanes_of(segment), int(slopes.shape[0])
    if lanes not in (16, 32, 64):
        return None
    index = T.bind(segment & constant(entries - 1, segment, "int16"))
    whole = T.bind(index if lanes >= 32 else join([index, index]))
    slope, low, high = (
        T.bind(lane_slice(_permuted_words(table, whole, entries, first), 0, lanes))
        for table, first in ((slopes, 0), (bases, 0), (bases, entries))
    )
    return slope, _zipped(low, high, "int32")


def lookup_codes(table: Buffer, codes: Expr, isa: Isa, first: int = 0, entries: int = 256) -> Expr:
    """``table[first + code]`` for 8-bit codes, int8 ones plus 128.

    Args:
        table: bytes, 256 of them from ``first`` on.
        codes: int8 or uint8 lanes.
        isa: instruction set.
        first: where the table begins.
        entries: how many of them codes reach, 64, 128 or 256.
    """
    lanes = lanes_of(codes)
    signed = str(codes.ty.dtype).startswith("int8")
    if isa.arch == "aarch64" and lanes % 8 == 0:
        flipped = codes ^ constant(-128, codes, "int8") if signed else codes
        index = T.bind(T.reinterpret(f"uint8x{lanes}", flipped))
        return _bytes(table, first, index, entries)
    if isa.simd == "avx512" and lanes in (16, 32, 64):
        return _permuted_bytes(table, first, codes, signed)
    wide = widen(codes, "int32")
    start = first + (128 if signed else 0)
    return table[wide + constant(start, wide)] if start else table[wide]


def pack_code_words(table: NDArray[Any], isa: Isa) -> NDArray[Any]:
    """A table for 8-bit codes: words in two planes of bytes where registers look up bytes."""
    fits = isa.simd is not None and table.dtype == np.int16 and table.size == CODES
    return split_planes(table) if fits else table


def lookup_code_words(planes: Buffer, codes: Expr, isa: Isa) -> Expr:
    """``table[code]`` for 8-bit codes, int8 ones plus 128, from planes of ``pack_code_words``."""
    low, high = (lookup_codes(planes, codes, isa, first) for first in (0, CODES))
    if lanes_of(codes) > 1:
        return _zipped(low, high, "int16")
    return widen(low, "uint8").astype("int16") | (high.astype("int16") << tirx.const(8, "int16"))


def _permuted_bytes(table: Buffer, first: int, codes: Expr, signed: bool) -> Expr:
    """Two lookups of 128 bytes by the low seven bits, chosen by the sign bit."""
    lanes = lanes_of(codes)
    whole = T.bind(join([T.reinterpret(f"int8x{lanes}", codes)] * (64 // lanes)))
    halves = [
        tirx.call_llvm_pure_intrin(
            "int8x64",
            "llvm.x86.avx512.vpermi2var.qi.512",
            load(table, start, 64),
            whole,
            load(table, start + 64, 64),
        )
        for start in (first, first + 128)
    ]
    negative, positive = halves if signed else halves[::-1]
    below = whole < splat(tirx.const(0, "int8"), 64)
    return lane_slice(T.bind(tirx.Select(below, negative, positive)), 0, lanes)
