"""Kernels of ``add``, ``scaled_add``, ``mul`` and ``requantize``."""

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
from tvm_passes.kernels.loops import elementwise
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.ops.add import AddConfig, ScaledAddConfig
from tvm_passes.ops.base import OPERATORS, TensorSpec
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


def rescaled(
    value: Expr, config: MulConfig | RequantizeConfig, multiplier: Expr, shift: Expr, isa: Isa
) -> Expr:
    """Requantize int32 values with a saturating pre-shift, to codes."""
    acc = pre_shifted(value, config.left)
    result = requantize(acc, multiplier, shift, config.left, isa)
    return codes(result, config.zero_point, config.qmin, config.qmax, config.dtype)


@kernel("requantize")
def requantize_kernel(config: RequantizeConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x of any shape."""

    def compute(values: Sequence[Expr], tables: Sequence[Buffer]) -> Expr:
        del tables
        x = centred(values[0], config.zero_x)
        return rescaled(x, config, constant(config.multiplier, x), constant(config.shift, x), isa)

    out = OPERATORS["requantize"].infer(config, specs)
    return elementwise(specs, out, isa.wide, compute)


@kernel("mul")
def mul(config: MulConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """a times b, broadcast."""

    def compute(values: Sequence[Expr], tables: Sequence[Buffer]) -> Expr:
        del tables
        product = centred(values[0], config.zero_a) * centred(values[1], config.zero_b)
        return rescaled(
            product,
            config,
            constant(config.multiplier, product),
            constant(config.shift, product),
            isa,
        )

    return elementwise(specs, OPERATORS["mul"].infer(config, specs), isa.wide, compute)


@kernel("add")
def add(config: AddConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """a plus b, broadcast, scalar factors."""

    def compute(values: Sequence[Expr], tables: Sequence[Buffer]) -> Expr:
        del tables
        a, b = values
        factors = (
            constant(config.multiplier_a, a),
            constant(config.multiplier_b, b),
        )
        return _sum(config, a, b, *factors, isa)

    return elementwise(specs, OPERATORS["add"].infer(config, specs), isa.wide, compute)


@kernel("scaled_add")
def scaled_add(config: ScaledAddConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """a plus b, broadcast, factors per channel."""

    def compute(values: Sequence[Expr], tables: Sequence[Buffer]) -> Expr:
        del tables
        a, b, multiplier_a, multiplier_b = values
        return _sum(config, a, b, multiplier_a, multiplier_b, isa)

    return elementwise(specs, OPERATORS["scaled_add"].infer(config, specs), isa.wide, compute)


def _sum(
    config: ScaledAddConfig, a: Expr, b: Expr, multiplier_a: Expr, multiplier_b: Expr, isa: Isa
) -> Expr:
    wide_a, wide_b = centred(a, config.zero_a), centred(b, config.zero_b)
    terms = mulhi(wide_a << constant(config.left_a, wide_a), multiplier_a, isa) + mulhi(
        wide_b << constant(config.left_b, wide_b), multiplier_b, isa
    )
    value = rounding_shift(terms, constant(config.shift, terms), isa)
    return codes(value, config.zero_point, config.qmin, config.qmax, config.dtype)
