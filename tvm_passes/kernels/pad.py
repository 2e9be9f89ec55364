"""``pad``: copy an NHWC map into a larger one filled with its zero point."""

from collections.abc import Sequence

from tvm import tirx

from tvm_passes.kernels.builder import build_kernel
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.movement import Copy, emit_copy, emit_fill, row_major
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.pad import PadConfig


@kernel("pad")
def pad(config: PadConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x [N, H, W, C] with constant borders.

    What lies right of a row and left of the next one is filled at once.
    """
    del isa
    out = OPERATORS["pad"].infer(config, specs)
    batch, height, width, channels = specs[0].shape
    image, row, pixel, _ = strides = row_major(out.shape)
    first = config.before[0] * row + config.before[1] * pixel
    end = first + (height - 1) * row + width * pixel
    with build_kernel([specs[0], out]) as builder:
        x, out_buf = builder.buffers
        value = tirx.const(config.value, out.dtype)
        emit_fill([batch], [image], 0, first, value, out_buf)
        between = row - width * pixel
        emit_fill([batch, height - 1], [image, row], first + width * pixel, between, value, out_buf)
        emit_fill([batch], [image], end, image - end, value, out_buf)
        emit_copy(
            Copy(specs[0].shape, row_major(specs[0].shape), strides, first_write=first), x, out_buf
        )
    return Kernel(builder.func)
