"""The pointwise functions, lane by lane: tables, segments, logarithmic and twin codes."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.fixed_point import (
    clamp,
    constant,
    mulhrs_add,
    requantize,
    rescale_words,
    rounding_shift,
    rounding_shift_narrow,
    saturate,
    saturating_shift_left,
    widen,
)
from tvm_passes.kernels.functions import log2_words
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.lanes import lane_operator
from tvm_passes.kernels.tables import (
    lookup_code_words,
    lookup_codes,
    lookup_lines,
    lookup_words,
    pack_code_words,
    pack_lines,
    pack_words,
)
from tvm_passes.ops.adalog import AdaLogQuantizeConfig
from tvm_passes.ops.pointwise import LutConfig
from tvm_passes.ops.pwl import PwlConfig
from tvm_passes.ops.pwl8 import Pwl8Config
from tvm_passes.ops.twin import TwinConfig


def _pack_table(tables: Sequence[NDArray[Any]], isa: Isa) -> Sequence[NDArray[Any]]:
    return [pack_code_words(table, isa) for table in tables]


@lane_operator("lut", tables=1, pack=_pack_table)
def lut(config: LutConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa) -> Expr:
    """A table entry per code."""
    (code,), (table,) = values, tables
    if str(table.dtype) in ("int8", "uint8") and int(table.shape[0]) == 256:
        return T.reinterpret(_vector(config.dtype, code), lookup_codes(table, code, isa))
    if str(table.dtype) != config.dtype:
        return lookup_code_words(table, code, isa)
    wide = widen(code, "int32")
    half = int(table.shape[0]) >> 1
    return table[wide + constant(half, wide)] if _is_signed(code) else table[wide]


def _vector(dtype: str, like: Expr) -> str:
    _, cross, lanes = str(like.ty.dtype).partition("x")
    return dtype + cross + lanes


def _is_signed(code: Expr) -> bool:
    return str(code.ty.dtype).startswith("int")


def _pack_lines(tables: Sequence[NDArray[Any]], isa: Isa) -> Sequence[NDArray[Any]]:
    return pack_lines(tables[0], tables[1], isa)


@lane_operator("pwl", tables=2, pack=_pack_lines)
def pwl(config: PwlConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa) -> Expr:
    """Slope and base of a segment are looked up or gathered; the rest is arithmetic on 32 bits."""
    slopes, bases = tables
    half = int(slopes.shape[0]) >> 1
    if isa.simd == "avx512":
        line = _line_by_words(config, T.bind(values[0]), tables)
    else:
        x = widen(values[0], "int32")
        width = constant(config.width, x)
        segment = clamp(x >> width, -half, half - 1, "int32")
        offset = x - (segment << width)
        index = segment + constant(half, x)
        line = bases[index] + widen(slopes[index], "int32") * offset
    value = rounding_shift(line, constant(config.shift, line), isa)
    return saturate(value, config.qmin, config.qmax, config.dtype, config.zero_point)


def _line_by_words(config: PwlConfig, x: Expr, tables: Sequence[Buffer]) -> Expr:
    """The line at int16 codes, whose distance from its start is an int16 too."""
    slopes, bases = tables
    entries = int(slopes.shape[0])
    half, width = entries >> 1, constant(config.width, x, "int16")
    segment = T.bind(clamp(x >> width, -half, half - 1, "int16"))
    offset = T.bind(x - (segment << width))
    found = lookup_lines(slopes, bases, segment)
    if found is None:
        index = widen(segment & constant(entries - 1, x, "int16"), "int32")
        low, high = widen(bases[index], "uint16"), bases[index + constant(entries, index)]
        found = slopes[index], widen(low, "int32") | (widen(high, "int32") << constant(16, index))
    slope, base = found
    return base + widen(slope, "int32") * widen(offset, "int32")


@lane_operator("pwl8", tables=2, pack=pack_words)
def pwl8(config: Pwl8Config, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa) -> Expr:
    """Slope and base of a segment are looked up; the rest is arithmetic on 16 bits."""
    x = T.bind(values[0])
    entries = int(tables[0].shape[0]) // (2 if isa.arch == "aarch64" else 1)
    slope, base = lookup_words(tables, x, config.width, entries, isa)
    reach = saturating_shift_left(x, config.left, isa)
    line = T.bind(mulhrs_add(base, slope, reach, isa))
    code = rounding_shift_narrow(line, config.shift, config.dtype, isa) if config.shift else line
    return clamp(code, config.qmin, config.qmax, config.dtype)


@lane_operator("adalog_quantize")
def adalog_quantize(
    config: AdaLogQuantizeConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa
) -> Expr:
    """One logarithm and one requantize per code."""
    del tables
    x = widen(values[0], "int32")
    value = (x << constant(config.left, x)) + constant(config.offset, x)
    octaves = constant(config.constant, x) - log2_words(tirx.max(value, constant(1, x)), isa)
    code = requantize(octaves, constant(config.multiplier, x), constant(config.shift, x), 0, isa)
    zero = constant(config.qmax, x)
    return saturate(tirx.Select(value > constant(0, x), code, zero), 0, config.qmax, config.dtype)


@lane_operator("twin")
def twin(config: TwinConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa) -> Expr:
    """Both ranges, and a choice."""
    del tables
    x = T.bind(values[0])

    def words(value: int) -> Expr:
        return constant(value, x, "int16")

    fine = rescale_words(x, words(config.fine_multiplier), config.fine_left, config.fine_shift, isa)
    coarse = rescale_words(
        x, words(config.coarse_multiplier), config.coarse_left, config.coarse_shift, isa
    )
    coarse = tirx.min(coarse, words(config.codes - 1)) << words(config.ratio_bits)
    fine = T.bind(fine)
    near = x < words(0) if config.qmin else fine < words(config.codes)
    return tirx.Select(near, tirx.max(fine, words(config.qmin)), coarse)
