"""``scale_channels`` and ``requantize_channels``, lane by lane."""

from collections.abc import Sequence

from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.elementwise import centred, centred_words, pre_shifted
from tvm_passes.kernels.fixed_point import (
    clamp,
    constant,
    mulhrs_add,
    requantize,
    rounding_shift_narrow,
    saturate,
)
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.lanes import lane_operator
from tvm_passes.ops.channels import RequantizeChannelsConfig, ScaleChannelsConfig


@lane_operator("scale_channels")
def scale_channels(
    config: ScaleChannelsConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa
) -> Expr:
    """x times its channel's factor: a multiply-add that rounds, and a shift."""
    del tables
    x, multiplier = values
    words = T.bind(centred_words(x, config.zero_x, config.left))
    start = constant(config.zero_point << config.shift, words, "int16")
    value = T.bind(mulhrs_add(start, words, multiplier, isa))
    codes = rounding_shift_narrow(value, config.shift, config.dtype, isa)
    return clamp(codes, config.qmin, config.qmax, config.dtype)


@lane_operator("requantize_channels")
def requantize_channels(
    config: RequantizeChannelsConfig, values: Sequence[Expr], tables: Sequence[Buffer], isa: Isa
) -> Expr:
    """x in another format, which its channel's factor belongs to."""
    del tables
    x, multiplier, shift = values
    acc = pre_shifted(centred(x, config.zero_x), config.left)
    result = requantize(acc, multiplier, shift, config.left, isa)
    return saturate(result, config.qmin, config.qmax, config.dtype, config.zero_point)
