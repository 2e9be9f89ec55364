"""``add``, ``scaled_add``, ``mul`` and ``requantize``, lane by lane."""

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Buffer

from tvm_passes.kernels.fixed_point import (
    constant,
    mulhi,
    requantize,
    rounding_shift,
    saturate,
    widen,
)
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.lanes import lane_operator
from tvm_passes.ops.add import AddConfig, ScaledAddConfig
from tvm_passes.ops.elementwise import INT32_MAX, MulConfig, RequantizeConfig


def centred(codes: Expr, zero_point: int) -> Expr:
    """Codes minus their zero point, in int32."""
    wide = widen(codes, "int32")
    return wide - constant(zero_point, wide) if zero_point else wide


def codes(value: Expr, zero_point: int, qmin: int, qmax: int, dtype: str) -> Expr:
    """Rounded int32 values to codes."""
    return saturate(value, qmin, qmax, dtype, zero_point)


def pre_shifted(value: Expr, left: int) -> Expr:
    """Clamp so that ``value << left`` fits int32."""
    if not left:
        return value
    limit = INT32_MAX >> left
    return tirx.max(tirx.min(value, constant(limit, value)), constant(-limit, value))


def _rescaled(value: Expr, config: MulConfig | RequantizeConfig, isa: Isa) -> Expr:
    """Requantize int32 values with a saturating pre-shift, to codes."""
    acc = pre_shifted(value, config.left)
    multiplier, shift = constant(config.multiplier, acc), constant(config.shift, acc)
    result = requantize(acc, multiplier, shift, config.left, isa)
    return codes(result, config.zero_point, config.qmin, config.qmax, config.dtype)


@lane_operator("requantize")
def requantize_lanes(
    config: RequantizeConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa
) -> Expr:
    """x in another format."""
    del tables
    return _rescaled(centred(values[0], config.zero_x), config, isa)


@lane_operator("mul")
def mul(config: MulConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa) -> Expr:
    """a times b."""
    del tables
    product = centred(values[0], config.zero_a) * centred(values[1], config.zero_b)
    return _rescaled(product, config, isa)


@lane_operator("add")
def add(config: AddConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa) -> Expr:
    """a plus b, scalar factors."""
    del tables
    a, b = values
    factors = constant(config.multiplier_a, a), constant(config.multiplier_b, b)
    return _sum(config, a, b, *factors, isa)


@lane_operator("scaled_add")
def scaled_add(
    config: ScaledAddConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa
) -> Expr:
    """a plus b, factors per channel."""
    del tables
    a, b, multiplier_a, multiplier_b = values
    return _sum(config, a, b, multiplier_a, multiplier_b, isa)


def _sum(
    config: ScaledAddConfig, a: Expr, b: Expr, multiplier_a: Expr, multiplier_b: Expr, isa: Isa
) -> Expr:
    wide_a, wide_b = centred(a, config.zero_a), centred(b, config.zero_b)
    terms = mulhi(wide_a << constant(config.left_a, wide_a), multiplier_a, isa) + mulhi(
        wide_b << constant(config.left_b, wide_b), multiplier_b, isa
    )
    value = rounding_shift(terms, constant(config.shift, terms), isa)
    return codes(value, config.zero_point, config.qmin, config.qmax, config.dtype)
