"""``pad``: copy an NHWC map into a larger one filled with its zero point."""

from collections.abc import Sequence

from tvm import te, tirx
from tvm.ir import Expr

from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.pad import PadConfig


@kernel("pad")
def pad(config: PadConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x [1, H, W, C] with constant borders."""
    del isa
    x = te.placeholder(specs[0].shape, specs[0].dtype, name="x")
    _, height, width, _ = specs[0].shape
    top, left = config.before

    def element(n: tirx.Var, h: tirx.Var, w: tirx.Var, c: tirx.Var) -> Expr:
        inside = tirx.all(h >= top, h < top + height, w >= left, w < left + width)
        return tirx.if_then_else(
            inside, x[n, h - top, w - left, c], tirx.const(config.value, specs[0].dtype)
        )

    padded = te.compute(OPERATORS["pad"].infer(config, specs).shape, element, name="padded")
    return Kernel(te.create_prim_func([x, padded]))
