"""``pad``: copy an NHWC map into a larger one filled with its zero point."""

from collections.abc import Sequence

from tvm import tirx
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import build_kernel
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.movement import Copy, emit_copy, emit_fill, row_major
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.pad import PadConfig


@kernel("pad")
def pad(config: PadConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x [N, H, W, C] with constant borders."""
    del isa
    out = OPERATORS["pad"].infer(config, specs)
    _, row, pixel, _ = strides = row_major(out.shape)
    first = config.before[0] * row + config.before[1] * pixel
    with build_kernel([specs[0], out]) as builder:
        x, out_buf = builder.buffers
        emit_borders(config, specs[0], out_buf)
        emit_copy(
            Copy(specs[0].shape, row_major(specs[0].shape), strides, first_write=first), x, out_buf
        )
    return Kernel(builder.func)


def emit_borders(config: PadConfig, inner: TensorSpec, out: Buffer) -> None:
    """Fill the borders around ``inner`` [N, H, W, C] in the flat ``out``.

    What lies right of a row and left of the next one is filled at once.
    """
    batch, height, width, _ = inner.shape
    image, row, pixel, _ = row_major(OPERATORS["pad"].infer(config, [inner]).shape)
    first = config.before[0] * row + config.before[1] * pixel
    right = first + width * pixel
    end = right + (height - 1) * row
    value = tirx.const(config.value, inner.dtype)
    emit_fill([batch], [image], 0, first, value, out)
    emit_fill([batch, height - 1], [image, row], right, row - width * pixel, value, out)
    emit_fill([batch], [image], end, image - end, value, out)
