"""Kernels of ``linear``, ``conv2d`` and ``fused``: the anchor's generator, and its epilogue."""

from collections.abc import Callable, Sequence
from typing import Any

from tvm_passes.kernels.depthwise import depthwise_kernel, grouped_kernel
from tvm_passes.kernels.epilogue import EpiloguePlan, plan_epilogue
from tvm_passes.kernels.gemm import conv2d_access, gemm_kernel, linear_access
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.fused import FusedConfig
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig

Product = Callable[[Any, Sequence[TensorSpec], EpiloguePlan, Isa], Kernel]


def _linear(
    config: LinearConfig, specs: Sequence[TensorSpec], plan: EpiloguePlan, isa: Isa
) -> Kernel:
    """x [..., K] times w [N, K]."""
    columns = plan.out.shape[2] if plan.pad else None
    return gemm_kernel(linear_access(specs, columns), specs, config, plan, isa)


def _conv2d(
    config: Conv2dConfig, specs: Sequence[TensorSpec], plan: EpiloguePlan, isa: Isa
) -> Kernel:
    """Dense, depthwise or grouped convolution of a padded NHWC map."""
    x, w = specs[:2]
    out = OPERATORS["conv2d"].infer(config, specs)
    if config.groups == 1:
        return gemm_kernel(conv2d_access(config, specs, out), specs, config, plan, isa)
    depthwise = config.groups == x.shape[3] == w.shape[0]
    return (depthwise_kernel if depthwise else grouped_kernel)(config, specs, plan, isa)


PRODUCTS: dict[str, Product] = {"linear": _linear, "conv2d": _conv2d}


def _alone(name: str) -> None:
    @kernel(name)
    def generate(config: Any, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
        out = OPERATORS[name].infer(config, specs)
        return PRODUCTS[name](config, specs, plan_epilogue((), specs, out), isa)


for _name in PRODUCTS:
    _alone(_name)


@kernel("fused")
def fused(config: FusedConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """A product and what follows it, in one pass over the output."""
    anchor, *steps = config.steps
    own = [specs[index] for index in anchor.inputs]
    out = OPERATORS[anchor.operator].infer(anchor.decoded(), own)
    plan = plan_epilogue(steps, specs, out)
    return PRODUCTS[anchor.operator](anchor.decoded(), specs, plan, isa)
