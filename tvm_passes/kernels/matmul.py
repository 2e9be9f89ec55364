"""``matmul`` of two computed tensors, batched over the leading dimensions."""

from collections.abc import Sequence
from math import prod

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from tvm_passes.kernels.builder import Accumulators, build_kernel, int32, load, splat, store
from tvm_passes.kernels.epilogue import finish
from tvm_passes.kernels.fixed_point import constant, widen
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.gemm import LinearConfig
from tvm_passes.ops.matmul import MatmulConfig

ROWS = 4  # output rows that share the loads of b


@kernel("matmul")
def matmul(config: MatmulConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """a [..., M, K] times b [..., K, N] or [..., N, K].

    b is first widened to int16 minus its zero point, [K][N padded to whole vectors], so that the
    inner loop is one broadcast and one multiply-add per vector of outputs.
    """
    a, b = specs
    out = OPERATORS["matmul"].infer(config, specs)
    batches, rows, depth = prod(a.shape[:-2]), a.shape[-2], a.shape[-1]
    columns, lanes = out.shape[-1], isa.lanes
    padded = -(-columns // lanes) * lanes
    output = LinearConfig(config.left, config.zero_point, config.qmin, config.qmax, config.dtype)

    with build_kernel([a, b, out]) as builder:
        a_buf, b_buf, out_buf = builder.buffers
        panel = T.alloc_buffer((depth * padded,), "int16")

        def element(batch: Expr, k: Expr, n: Expr) -> Expr:
            index = n * depth + k if config.transpose_b else k * columns + n
            code = b_buf[batch * (depth * columns) + index].astype("int16")
            return code - tirx.const(config.zero_b, "int16")

        def tile(batch: Expr, row: Expr, height: int) -> None:
            with T.serial(0, padded // lanes) as block:
                acc = Accumulators(height, lanes)
                for r in range(height):
                    acc[r] = splat(int32(0), lanes)
                with T.serial(0, depth) as k:
                    cell = T.bind(widen(load(panel, k * padded + block * lanes, lanes), "int32"))
                    for r in range(height):
                        code = a_buf[(batch * rows + row + r) * depth + k].astype("int32")
                        code = T.bind(splat(code - int32(config.zero_a), lanes))
                        acc[r] = acc[r] + code * cell
                spill = T.alloc_buffer((lanes,), config.dtype)
                for r in range(height):
                    value = acc[r]
                    if not config.raw:
                        multiplier = constant(config.multiplier, value)
                        value = finish(
                            value, multiplier, constant(config.shift, value), output, isa
                        )
                    offset = (batch * rows + row + r) * columns + block * lanes
                    _store(out_buf, offset, value, spill, block, columns, lanes)

        with T.serial(0, batches) as batch:
            with T.serial(0, depth) as k:
                with T.serial(0, padded) as n:
                    inside = n < columns
                    clamped = tirx.min(n, columns - 1)
                    value = tirx.Select(inside, element(batch, k, clamped), tirx.const(0, "int16"))
                    T.buffer_store(panel, value, [k * padded + n])
            if rows // ROWS:
                with T.serial(0, rows // ROWS) as index:
                    tile(batch, index * ROWS, ROWS)
            if rows % ROWS:
                tile(batch, int32(rows // ROWS * ROWS), rows % ROWS)
    return Kernel(builder.func)


def _store(
    out: tirx.Buffer,
    offset: Expr,
    value: Expr,
    spill: tirx.Buffer,
    block: Expr,
    columns: int,
    lanes: int,
) -> None:
    """Store a vector of outputs; the ragged last one goes through ``spill``."""
    if columns % lanes == 0:
        store(out, offset, value, lanes)
        return
    full = columns // lanes
    with T.If(block < full):
        with T.Then():
            store(out, offset, value, lanes)
        with T.Else():
            store(spill, 0, value, lanes)
            for lane in range(columns % lanes):
                T.buffer_store(out, spill[lane], [offset + lane])
