"""Kernel of ``layer_norm``: sums of a row, its multiplier, then one requantize per element."""

from collections.abc import Sequence
from math import prod

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from tvm_passes.kernels.builder import build_kernel, int32, load, splat, store
from tvm_passes.kernels.fixed_point import constant, mulhi, rounding_shift, saturate, widen
from tvm_passes.kernels.functions import held, int64, reciprocal_sqrt
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.parallel import PER_BYTE, tasks
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.kernels.rows import RowSums, unrolled
from tvm_passes.kernels.windows import Held
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.norm import LayerNormConfig


@kernel("layer_norm")
def layer_norm(config: LayerNormConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x [..., C]."""
    out = OPERATORS["layer_norm"].infer(config, specs)
    n, least = config.length, INT_RANGE[specs[0].dtype][0]
    with build_kernel([specs[0], out]) as builder:
        x, out_buf = builder.buffers

        def one(row: Expr) -> None:
            start = row * n
            centre, w = _moments(config, *RowSums(x, isa).emit(start, n), least)
            multiplier, shift = _row_multiplier(config, w)

            def normalize(pre: Expr | None, factor: Expr, right: Expr) -> None:
                def emit(offset: Expr, width: int) -> None:
                    code = widen(load(x, start + offset, width), "int32")
                    fine = (code << constant(config.mean_bits, code)) - splat(centre, width)
                    if pre is not None:
                        fine = fine << splat(pre, width)
                    high = mulhi(Held(fine).get(), splat(factor, width), isa)
                    value = Held(rounding_shift(high, splat(right, width), isa)).get()
                    result = saturate(
                        value, config.qmin, config.qmax, config.dtype, config.zero_point
                    )
                    store(out_buf, start + offset, result, width)

                unrolled(n, isa.wide, emit)

            with T.If(tirx.all(shift >= int32(1), shift <= int32(31))):
                with T.Then():
                    normalize(None, multiplier, shift)
                with T.Else():  # rows that are all but constant, or hardly vary
                    normalize(
                        held(tirx.max(int32(1) - shift, int32(0))),
                        held(tirx.Select(shift > int32(31), int32(0), multiplier)),
                        held(tirx.max(tirx.min(shift, int32(31)), int32(1))),
                    )

        tasks(prod(out.shape[:-1]), PER_BYTE * n, one)
    return Kernel(builder.func)


def _moments(config: LayerNormConfig, total: Expr, squares: Expr, least: int) -> tuple[Expr, Expr]:
    """The mean with its fraction (int32) and w (int64) of a row, from its sums.

    Args:
        config: of the operator.
        total: sum of the codes, int64.
        squares: sum of their squares, int64.
        least: least code of the input.
    """
    n, bits = config.length, config.variance_bits
    mean = held(_divide(total - int64(n * least), n) + int64(least))
    rest = held(total - mean * int64(n))
    spread = squares - mean * (total + rest)
    w = (spread << int64(bits)) - _divide((rest * rest) << int64(bits), n) + int64(config.epsilon)
    fraction = _divide((rest << int64(config.mean_bits + 1)) + int64(n), 2 * n)
    centre = ((mean << int64(config.mean_bits)) + fraction).astype("int32")
    return held(centre), held(w)


def _divide(value: Expr, by: int) -> Expr:
    """Floor of an int64 >= 0 divided by a constant: cheaper without a sign."""
    quotient = tirx.truncdiv(value.astype("uint64"), tirx.const(by, "uint64"))
    return quotient.astype("int64")


def _row_multiplier(config: LayerNormConfig, w: Expr) -> tuple[Expr, Expr]:
    """Multiplier and shift of a row, int32, before ``ops.norm.row_multiplier`` clips them."""
    inverse, half = reciprocal_sqrt(w)
    product = held(inverse * int64(config.multiplier))
    large = held(product >> int64(61))
    multiplier = held((product >> (int64(30) + large)).astype("int32"))
    return multiplier, held((half - int64(config.exponent) - large).astype("int32"))
