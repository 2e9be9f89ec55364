"""Kernels of ``linear``, ``conv2d`` and ``fused``: the anchor's generator, and its epilogue."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tvm_passes.kernels import depthwise_tile, gemm_tile
from tvm_passes.kernels.depthwise import depthwise_kernel, depthwise_window, grouped_kernel
from tvm_passes.kernels.epilogue import EpiloguePlan, plan_epilogue
from tvm_passes.kernels.gemm import conv2d_access, gemm_kernel, linear_access
from tvm_passes.kernels.gemm_tile import Access, GemmSchedule, uses_dot
from tvm_passes.kernels.gemm_weights import weight_dtype
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.registry import WEIGHTS, Constants, Kernel, kernel
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.fused import FusedConfig
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig

Space = Iterator[Any]


@dataclass(frozen=True)
class Product:
    """An operator that others may be fused to.

    Attributes:
        generate: ``(config, specs, plan, isa, schedule)``; specs are the operator's own four
            arguments and then those of the fused steps.
        space: ``(config, specs, plan, isa)`` to all schedules, the default first.
        access: ``(config, specs, plan)`` to the implicit matrix, or None where the product is none.
    """

    generate: Callable[[Any, Sequence[TensorSpec], EpiloguePlan, Isa, Any], Kernel]
    space: Callable[[Any, Sequence[TensorSpec], EpiloguePlan, Isa], Iterator[Any]]
    access: Callable[[Any, Sequence[TensorSpec], EpiloguePlan], Access | None]


def _linear_access(config: LinearConfig, specs: Sequence[TensorSpec], plan: EpiloguePlan) -> Access:
    del config
    return linear_access(specs, plan.out.shape[2] if plan.pad else None)


def _linear(
    config: LinearConfig,
    specs: Sequence[TensorSpec],
    plan: EpiloguePlan,
    isa: Isa,
    schedule: GemmSchedule | None,
) -> Kernel:
    """x [..., K] times w [N, K]."""
    return gemm_kernel(_linear_access(config, specs, plan), specs, config, plan, isa, schedule)


def _linear_space(
    config: LinearConfig, specs: Sequence[TensorSpec], plan: EpiloguePlan, isa: Isa
) -> Space:
    access = _linear_access(config, specs, plan)
    return gemm_tile.schedules(access, specs[1].shape[0], specs[0].dtype, isa)


def _conv2d(
    config: Conv2dConfig,
    specs: Sequence[TensorSpec],
    plan: EpiloguePlan,
    isa: Isa,
    schedule: Any,
) -> Kernel:
    """Dense, depthwise or grouped convolution of a padded NHWC map."""
    access = _conv2d_access(config, specs, plan)
    if access is not None:
        return gemm_kernel(access, specs, config, plan, isa, schedule)
    if _is_depthwise(config, specs):
        return depthwise_kernel(config, specs, plan, isa, schedule)
    return grouped_kernel(config, specs, plan, isa)


def _conv2d_access(
    config: Conv2dConfig, specs: Sequence[TensorSpec], plan: EpiloguePlan
) -> Access | None:
    del plan
    if config.groups != 1:
        return None
    return conv2d_access(config, specs, OPERATORS["conv2d"].infer(config, specs))


def _is_depthwise(config: Conv2dConfig, specs: Sequence[TensorSpec]) -> bool:
    return config.groups == specs[1].shape[0] and config.groups % specs[0].shape[3] == 0


def _conv2d_space(
    config: Conv2dConfig, specs: Sequence[TensorSpec], plan: EpiloguePlan, isa: Isa
) -> Space:
    if _is_depthwise(config, specs):
        window = depthwise_window(config, specs)
        return depthwise_tile.schedules(window, uses_dot(specs[0].dtype, isa), isa)
    access = _conv2d_access(config, specs, plan)
    if access is None:
        return iter(())
    return gemm_tile.schedules(access, specs[1].shape[0], specs[0].dtype, isa)


PRODUCTS: dict[str, Product] = {
    "linear": Product(_linear, _linear_space, _linear_access),
    "conv2d": Product(_conv2d, _conv2d_space, _conv2d_access),
}


def _parts(
    name: str, config: Any, specs: Sequence[TensorSpec]
) -> tuple[Product, Any, EpiloguePlan]:
    """The product of a call, alone or fused, its configuration, and what follows it."""
    if not isinstance(config, FusedConfig):
        out = OPERATORS[name].infer(config, specs)
        return PRODUCTS[name], config, plan_epilogue((), specs, out)
    anchor, *steps = config.steps
    own = anchor.decoded()
    out = OPERATORS[anchor.operator].infer(own, [specs[index] for index in anchor.inputs])
    return PRODUCTS[anchor.operator], own, plan_epilogue(steps, specs, out)


def _generate(
    name: str, config: Any, specs: Sequence[TensorSpec], isa: Isa, schedule: Any = None
) -> Kernel:
    product, own, plan = _parts(name, config, specs)
    return product.generate(own, specs, plan, isa, schedule)


def _space(name: str, config: Any, specs: Sequence[TensorSpec], isa: Isa) -> Iterator[Any]:
    product, own, plan = _parts(name, config, specs)
    return product.space(own, specs, plan, isa)


def _narrow(
    name: str, config: Any, specs: Sequence[TensorSpec], constants: Constants, isa: Isa
) -> str:
    """Depthwise weights are few, and stay as they are."""
    product, own, plan = _parts(name, config, specs)
    access = product.access(own, specs, plan)
    if access is None:
        return "int8"
    weights = constants[WEIGHTS]
    return weight_dtype(weights.reshape(len(weights), -1), access, specs[0].dtype, isa)


for _name in (*PRODUCTS, "fused"):
    kernel(_name, partial(_space, _name), partial(_narrow, _name))(partial(_generate, _name))
