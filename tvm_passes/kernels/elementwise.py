"""``add``, ``scaled_add``, ``mul``, ``dynamic_relu`` and ``requantize``, lane by lane."""

from collections.abc import Sequence
from functools import partial

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import int32, native
from tvm_passes.kernels.fixed_point import (
    constant,
    requantize,
    rescale,
    rounding_shift_narrow,
    saturate,
    widen,
)
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.lanes import lane_operator
from tvm_passes.ops.add import AddConfig, ScaledAddConfig
from tvm_passes.ops.dynamic_relu import HALF, DynamicReluConfig
from tvm_passes.ops.elementwise import INT32_MAX, MulConfig, RequantizeConfig


def centred(codes: Expr, zero_point: int) -> Expr:
    """Codes minus their zero point, in int32."""
    wide = widen(codes, "int32")
    return wide - constant(zero_point, wide) if zero_point else wide


def pre_shifted(value: Expr, left: int) -> Expr:
    """Clamp so that ``value << left`` fits int32."""
    if not left:
        return value
    limit = INT32_MAX >> left
    return tirx.max(tirx.min(value, constant(limit, value)), constant(-limit, value))


@lane_operator("requantize")
def requantize_lanes(
    config: RequantizeConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa
) -> Expr:
    """x in another format."""
    del tables
    acc = pre_shifted(centred(values[0], config.zero_x), config.left)
    result = rescale(acc, constant(config.multiplier, acc), config.left, isa)
    return saturate(result, config.qmin, config.qmax, config.dtype, config.zero_point)


@lane_operator("mul")
def mul(config: MulConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa) -> Expr:
    """a times b."""
    del tables
    product = centred(values[0], config.zero_a) * centred(values[1], config.zero_b)
    acc = pre_shifted(product, config.left)
    multiplier, shift = constant(config.multiplier, acc), constant(config.shift, acc)
    result = requantize(acc, multiplier, shift, config.left, isa)
    return saturate(result, config.qmin, config.qmax, config.dtype, config.zero_point)


@lane_operator("dynamic_relu")
def dynamic_relu(
    config: DynamicReluConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa
) -> Expr:
    """The greater of x times either slope."""
    del tables
    x, first, second = centred(values[0], config.zero_x), *(widen(v, "int32") for v in values[1:])
    greater = tirx.max(x * first, x * (second - constant(HALF, second)))
    acc = pre_shifted(greater, config.left)
    multiplier, shift = constant(config.multiplier, acc), constant(config.shift, acc)
    result = requantize(acc, multiplier, shift, config.left, isa)
    return saturate(result, config.qmin, config.qmax, config.dtype, config.zero_point)


@lane_operator("add")
def add(config: AddConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa) -> Expr:
    """a plus b, scalar factors."""
    del tables
    a, b = values
    factor_a = constant(config.multiplier_a, a, "int16")
    factor_b = constant(config.multiplier_b, b, "int16")
    return _sum(config, a, b, factor_a, factor_b, isa)


@lane_operator("scaled_add")
def scaled_add(
    config: ScaledAddConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa
) -> Expr:
    """a plus b, factors per channel."""
    del tables
    a, b, multiplier_a, multiplier_b = values
    return _sum(config, a, b, multiplier_a, multiplier_b, isa)


def _sum(
    config: ScaledAddConfig, a: Expr, b: Expr, factor_a: Expr, factor_b: Expr, isa: Isa
) -> Expr:
    a = centred_words(a, config.zero_a, config.left_a)
    b = centred_words(b, config.zero_b, config.left_b)
    forms = {"avx512": (32, partial(_interleaved_sum, config.shift))}
    value = native(isa, forms, a, b, factor_a, factor_b)
    if value is None:
        terms = widen(a, "int32") * widen(factor_a, "int32")
        terms = terms + widen(b, "int32") * widen(factor_b, "int32")
        value = rounding_shift_narrow(terms, config.shift, "int16", isa)
    return saturate(value, config.qmin, config.qmax, config.dtype, config.zero_point)


def centred_words(codes: Expr, zero_point: int, left: int) -> Expr:
    """Codes minus their zero point, shifted left, in int16."""
    words = widen(codes, "int16")
    if left:
        words = words << constant(left, words, "int16")
    return words - constant(zero_point << left, words, "int16") if zero_point else words


def _interleaved_sum(shift: int, a: Expr, b: Expr, factor_a: Expr, factor_b: Expr) -> Expr:
    """``vpmaddwd`` on pairs of a and b; ``vpackssdw`` undoes the order of ``vpunpck``."""

    def pairs(half: int, low: Expr, high: Expr) -> Expr:
        order = [start + half * 4 + i for start in range(0, 32, 8) for i in range(4)]
        return tirx.Shuffle([low, high], [int32(i) for lane in order for i in (lane, lane + 32)])

    def terms(half: int) -> Expr:
        name = "llvm.x86.avx512.pmaddw.d.512"
        factors = pairs(half, factor_a, factor_b)
        total = tirx.call_llvm_pure_intrin("int32x16", name, pairs(half, a, b), factors)
        return (total + constant(1 << (shift - 1), total)) >> constant(shift, total)

    return tirx.call_llvm_pure_intrin(
        "int16x32", "llvm.x86.avx512.packssdw.512", terms(0), terms(1)
    )
