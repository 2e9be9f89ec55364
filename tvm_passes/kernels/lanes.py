"""Registry of the operators that work lane by lane.

One registration gives both the operator's stand-alone kernel (``elementwise``) and its place in the
epilogue of a product.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.tirx import Buffer

from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import elementwise
from tvm_passes.kernels.registry import KERNELS, Family, Kernel
from tvm_passes.ops.base import OPERATORS, TensorSpec

Compute = Callable[[Any, Sequence[Expr], Sequence[Buffer], Isa], Expr]
PackTables = Callable[[Sequence[NDArray[Any]], Isa], Sequence[NDArray[Any]]]


@dataclass(frozen=True)
class LaneOperator:
    """An operator whose output elements depend on the matching elements of its operands.

    Attributes:
        compute: ``(config, one vector per operand, tables, isa) -> vector of the output``.
        tables: how many of the last arguments are tables, constants of one axis.
        pack: repacks the tables at build time; None where they are used as they are.
    """

    compute: Compute
    tables: int = 0
    pack: PackTables | None = None

    def packed(self, arrays: Sequence[NDArray[Any]], isa: Isa) -> list[NDArray[Any]]:
        """The tables as the kernel wants them."""
        return list(arrays if self.pack is None else self.pack(arrays, isa))

    def packed_specs(self, specs: Sequence[TensorSpec], isa: Isa) -> list[TensorSpec]:
        """Specs of the tables as the kernel wants them."""
        zeros = [np.zeros(spec.shape, spec.dtype) for spec in specs]
        return [TensorSpec(table.shape, str(table.dtype)) for table in self.packed(zeros, isa)]


LANE_OPERATORS: dict[str, LaneOperator] = {}


def lane_operator(
    name: str, tables: int = 0, pack: PackTables | None = None
) -> Callable[[Compute], Compute]:
    """Register ``compute(config, values, tables, isa)`` as operator ``name``."""

    def register(compute: Compute) -> Compute:
        LANE_OPERATORS[name] = LaneOperator(compute, tables, pack)
        KERNELS[name] = Family(partial(lane_kernel, name))
        return compute

    return register


def lane_kernel(name: str, config: Any, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """Stand-alone kernel of a lane operator; operands broadcast like NumPy's."""
    operator = LANE_OPERATORS[name]
    count = len(specs) - operator.tables
    packed = [*specs[:count], *operator.packed_specs(specs[count:], isa)]
    kernel = elementwise(
        packed,
        OPERATORS[name].infer(config, specs),
        isa.wide,
        lambda values, tables: operator.compute(config, values, tables, isa),
        operator.tables,
    )

    def pack(constants: Mapping[int, NDArray[Any]]) -> Mapping[int, NDArray[Any]]:
        tables = operator.packed([constants[index] for index in range(count, len(specs))], isa)
        return dict(enumerate(tables, count))

    return Kernel(kernel.func, pack if operator.pack else None)
