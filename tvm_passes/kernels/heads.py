"""Values that may differ between the heads of an attention, in a kernel that works on one."""

from collections.abc import Sequence
from typing import TypeAlias

from tvm import tirx
from tvm.ir import Expr

from tvm_passes.kernels.builder import int32, lanes_of, splat
from tvm_passes.kernels.functions import held
from tvm_passes.ops.heads import PerHead

HeadValue: TypeAlias = int | Expr  # an int where all heads have the same


def of_head(value: PerHead, head: Expr) -> HeadValue:
    """The value of one head, chosen once; an int32 scalar where heads differ."""
    return value if isinstance(value, int) else held(_chosen(value, head, 0))


def _chosen(values: Sequence[int], head: Expr, first: int) -> Expr:
    if first == len(values) - 1:
        return int32(values[first])
    return tirx.Select(head == first, int32(values[first]), _chosen(values, head, first + 1))


def filled(value: HeadValue, like: Expr, dtype: str = "int32") -> Expr:
    """``value`` in as many lanes of ``dtype`` as ``like`` has."""
    scalar = tirx.const(value, dtype) if isinstance(value, int) else value.astype(dtype)
    return splat(scalar, lanes_of(like))


def shifted_left(value: HeadValue, left: int) -> Expr:
    """``value << left``, int64."""
    if isinstance(value, int):
        return tirx.const(value << left, "int64")
    return value.astype("int64") << tirx.const(left, "int64")
