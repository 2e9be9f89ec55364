"""The end of every product: requantize an accumulator vector, clamp, narrow and store it."""

from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import int32, load, splat, store
from tvm_passes.kernels.fixed_point import requantize, saturate
from tvm_passes.kernels.isa import Isa
from tvm_passes.ops.gemm import LinearConfig


def finish(acc: Expr, multiplier: Expr, shift: Expr, config: LinearConfig, isa: Isa) -> Expr:
    """int32 accumulators (scalar or vector) to output codes."""
    value = requantize(acc, multiplier, shift, config.left, isa)
    return saturate(value, config.qmin, config.qmax, config.dtype, config.zero_point)


def store_channels(
    out: Buffer,
    offset: Expr,
    acc: Expr,
    first_channel: Expr | int,
    lanes: int,
    valid: int,
    parameters: tuple[Buffer, Buffer],
    config: LinearConfig,
    isa: Isa,
) -> None:
    """Finish one vector of channels and store its first ``valid`` lanes.

    Args:
        out: flat output buffer.
        offset: where the first channel goes.
        acc: int32 vector of ``lanes`` channels.
        first_channel: index of the first channel into the parameters, which are padded to whole
            vectors.
        lanes: lanes of ``acc``.
        valid: lanes that exist in the output.
        parameters: multiplier and shift, one int32 per channel.
        config: output format.
        isa: instruction set.
    """
    multiplier, shift = (load(buffer, first_channel, lanes) for buffer in parameters)
    codes = finish(acc, multiplier, shift, config, isa)
    if valid == lanes:
        store(out, offset, codes, lanes)
        return
    spill = T.alloc_buffer((lanes,), config.dtype)
    store(spill, 0, codes, lanes)
    for lane in range(valid):
        T.buffer_store(out, spill[lane], [offset + lane])


def zero_accumulators(acc: Buffer, count: int, lanes: int) -> None:
    """Clear ``count`` accumulator vectors."""
    for index in range(count):
        T.buffer_store(acc, splat(int32(0), lanes), [index])
