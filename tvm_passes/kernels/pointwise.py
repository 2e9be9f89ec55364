"""Kernels of the pointwise functions: ``lut``, ``pwl`` and ``adalog_quantize``."""

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Buffer

from tvm_passes.kernels.elementwise import codes
from tvm_passes.kernels.fixed_point import constant, requantize, rounding_shift, saturate, widen
from tvm_passes.kernels.functions import log2
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import elementwise
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.ops.adalog import AdaLogQuantizeConfig
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.pointwise import LutConfig
from tvm_passes.ops.pwl import PwlConfig


@kernel("lut")
def lut(config: LutConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """One table load per code: scalar code, bound by loads and stores."""
    del isa
    first = 128 if specs[0].dtype == "int8" else 0

    def compute(values: Sequence[Expr], tables: Sequence[Buffer]) -> Expr:
        return tables[0][values[0].astype("int32") + first]

    return elementwise(specs, OPERATORS["lut"].infer(config, specs), 1, compute, tables=1)


@kernel("pwl")
def pwl(config: PwlConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """Slope and base of a segment are gathered; the rest is vector arithmetic."""
    segments = specs[1].shape[0]
    half = segments >> 1

    def compute(values: Sequence[Expr], tables: Sequence[Buffer]) -> Expr:
        slopes, bases = tables
        x = widen(values[0], "int32")
        width = constant(config.width, x)
        segment = tirx.max(
            tirx.min(x >> width, constant(segments - half - 1, x)), constant(-half, x)
        )
        offset = x - (segment << width)
        index = segment + constant(half, x)
        line = bases[index] + widen(slopes[index], "int32") * offset
        value = rounding_shift(line, constant(config.shift, line), isa)
        return codes(value, config.zero_point, config.qmin, config.qmax, config.dtype)

    out = OPERATORS["pwl"].infer(config, specs)
    return elementwise(specs, out, isa.wide, compute, tables=2)


@kernel("adalog_quantize")
def adalog_quantize(config: AdaLogQuantizeConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """One logarithm and one requantize per code."""

    def compute(values: Sequence[Expr], tables: Sequence[Buffer]) -> Expr:
        del tables
        x = widen(values[0], "int32")
        value = (x << constant(config.left, x)) + constant(config.offset, x)
        octaves = constant(config.constant, x) - log2(tirx.max(value, constant(1, x)), isa)
        code = requantize(
            octaves, constant(config.multiplier, x), constant(config.shift, x), 0, isa
        )
        zero = constant(config.qmax, x)
        return saturate(
            tirx.Select(value > constant(0, x), code, zero), 0, config.qmax, config.dtype
        )

    out = OPERATORS["adalog_quantize"].infer(config, specs)
    return elementwise(specs, out, isa.wide, compute)
