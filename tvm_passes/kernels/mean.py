"""Kernel of ``mean``: sums of vectors along the last axis, reduced or not."""

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from tvm_passes.kernels.builder import build_kernel, int32, load, splat, store
from tvm_passes.kernels.elementwise import centred, pre_shifted
from tvm_passes.kernels.fixed_point import constant, requantize, saturate, widen
from tvm_passes.kernels.functions import lane_sum
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import nested, vector_loop
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.pooling import MeanConfig


@kernel("mean")
def mean(config: MeanConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x of any rank; vectors run along the last axis, reduced or not."""
    shape = specs[0].shape
    out = OPERATORS["mean"].infer(config, specs)
    last = len(shape) - 1
    kept = [axis for axis in range(last) if axis not in config.axes]
    reduced = [axis for axis in config.axes if axis != last]
    strides = [1] * len(shape)
    for axis in range(last - 1, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    sum_dtype = "int64" if config.right else "int32"
    across = last in config.axes

    with build_kernel([specs[0], out]) as builder:
        x, out_buf = builder.buffers
        lanes = isa.lanes
        acc = T.alloc_buffer((lanes,), sum_dtype)
        total = T.alloc_buffer((1,), sum_dtype)

        def offset_of(axes: Sequence[int], indices: Sequence[Expr]) -> Expr:
            offset: Expr = int32(0)
            for axis, index in zip(axes, indices, strict=True):
                offset = offset + index * strides[axis]
            return offset

        def term(offset: Expr, width: int) -> Expr:
            return widen(centred(load(x, offset, width), config.zero_x), sum_dtype)

        def finish(value: Expr, offset: Expr, width: int) -> None:
            wide = value >> constant(config.right, value, sum_dtype) if config.right else value
            narrow = pre_shifted(widen(wide, "int32"), config.left)
            multiplier, shift = constant(config.multiplier, narrow), constant(config.shift, narrow)
            result = requantize(narrow, multiplier, shift, config.left, isa)
            code = saturate(result, config.qmin, config.qmax, config.dtype, config.zero_point)
            store(out_buf, offset, code, width)

        def along(base: Expr, row: Expr) -> None:
            """Channels are kept: every vector of them has its own sums."""

            def channels(first: Expr, width: int) -> None:
                store(acc, 0, splat(tirx.const(0, sum_dtype), width), width)

                def add(indices: Sequence[Expr]) -> None:
                    value = term(base + offset_of(reduced, indices) + first, width)
                    store(acc, 0, load(acc, 0, width) + value, width)

                nested([shape[axis] for axis in reduced], add)
                finish(load(acc, 0, width), row * shape[last] + first, width)

            vector_loop(shape[last], lanes, channels)

        def whole(base: Expr, row: Expr) -> None:
            """The last axis is reduced as well: lanes are added up at the end."""
            store(acc, 0, splat(tirx.const(0, sum_dtype), lanes), lanes)
            T.buffer_store(total, tirx.const(0, sum_dtype), [0])

            def add(indices: Sequence[Expr]) -> None:
                def channels(first: Expr, width: int) -> None:
                    value = term(base + offset_of(reduced, indices) + first, width)
                    if width == lanes:
                        store(acc, 0, load(acc, 0, lanes) + value, lanes)
                    else:
                        T.buffer_store(total, total[0] + lane_sum(value, width), [0])

                vector_loop(shape[last], lanes, channels)

            nested([shape[axis] for axis in reduced], add)
            finish(total[0] + lane_sum(load(acc, 0, lanes), lanes), row, 1)

        def body(indices: Sequence[Expr]) -> None:
            row: Expr = int32(0)
            for axis, index in zip(kept, indices, strict=True):
                row = row * shape[axis] + index
            (whole if across else along)(offset_of(kept, indices), row)

        nested([shape[axis] for axis in kept], body)
    return Kernel(builder.func)
