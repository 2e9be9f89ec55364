"""Kernel of ``resize_bilinear``, vectorised over channels."""

from collections.abc import Sequence

from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from tvm_passes.kernels.builder import build_kernel, load, splat, store
from tvm_passes.kernels.elementwise import centred, codes, pre_shifted
from tvm_passes.kernels.fixed_point import constant, mulhi, requantize
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import vector_loop
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.resize import ResizeConfig


@kernel("resize_bilinear")
def resize_bilinear(config: ResizeConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x [N, H, W, C] with the tables of rows and columns."""
    batch, height, width, channels = specs[0].shape
    rows, columns = config.size
    out = OPERATORS["resize_bilinear"].infer(config, specs)
    with build_kernel([*specs, out]) as builder:
        x, row_table, column_table, out_buf = builder.buffers

        with T.grid(batch, rows, columns) as (image, row, column):
            top, bottom, top_weight, bottom_weight = (
                T.bind(row_table[part * rows + row]) for part in range(4)
            )
            left, right, left_weight, right_weight = (
                T.bind(column_table[part * columns + column]) for part in range(4)
            )
            pixel = (image * rows + row) * columns + column
            sources = [
                [((image * height + y) * width + z) * channels for z in (left, right)]
                for y in (top, bottom)
            ]
            weights = (top_weight, bottom_weight), (left_weight, right_weight)

            def emit(
                first: Expr,
                lanes: int,
                pixel: Expr = pixel,
                sources: Sequence[Sequence[Expr]] = sources,
                weights: tuple[tuple[Expr, Expr], tuple[Expr, Expr]] = weights,
            ) -> None:
                def blend(a: Expr, b: Expr, pair: tuple[Expr, Expr]) -> Expr:
                    return mulhi(a, splat(pair[0], lanes), isa) + mulhi(
                        b, splat(pair[1], lanes), isa
                    )

                def code(start: Expr) -> Expr:
                    value = centred(load(x, start + first, lanes), config.zero_x)
                    return value << constant(config.fraction, value)

                upper, lower = (
                    blend(code(starts[0]), code(starts[1]), weights[1]) for starts in sources
                )
                one = constant(1, upper)
                value = T.bind(blend(upper << one, lower << one, weights[0]))
                value = requantize(
                    pre_shifted(value, config.left),
                    constant(config.multiplier, value),
                    constant(config.shift, value),
                    config.left,
                    isa,
                )
                result = codes(value, config.zero_point, config.qmin, config.qmax, config.dtype)
                store(out_buf, pixel * channels + first, result, lanes)

            vector_loop(channels, isa.lanes, emit)
    return Kernel(builder.func)
