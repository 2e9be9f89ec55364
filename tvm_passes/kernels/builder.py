"""Small helpers around TVM's IRBuilder, in which the kernels are written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.ops.base import TensorSpec


@dataclass
class KernelBuilder:
    """A PrimFunc under construction.

    Attributes:
        buffers: one flat view per argument, in order.
        func: the finished PrimFunc, after the ``with`` block.
    """

    buffers: list[Buffer] = field(default_factory=list)
    func: tirx.PrimFunc | None = None


@contextmanager
def build_kernel(specs: Sequence[TensorSpec]) -> Iterator[KernelBuilder]:
    """Open a PrimFunc with one buffer argument per spec; inside, buffers are flat."""
    builder = KernelBuilder()
    with IRBuilder() as ib:
        with T.prim_func(s_tir=True):
            T.func_name("kernel")
            T.func_attr({"tirx.noalias": True})
            arguments = [
                T.arg(f"arg{index}", T.buffer(spec.shape, spec.dtype))
                for index, spec in enumerate(specs)
            ]
            builder.buffers = [
                T.decl_buffer((prod(spec.shape),), spec.dtype, data=argument.data)
                for spec, argument in zip(specs, arguments, strict=True)
            ]
            yield builder
    builder.func = ib.get()


def vector_type(dtype: str, lanes: int) -> str:
    """``int8`` and 16 lanes -> ``int8x16``."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def load(buffer: Buffer, offset: Expr | int, lanes: int) -> Expr:
    """``lanes`` consecutive elements."""
    return buffer.vload([offset], vector_type(str(buffer.dtype), lanes))


def store(buffer: Buffer, offset: Expr | int, value: Expr, lanes: int) -> None:
    """Store ``lanes`` consecutive elements."""
    T.buffer_store(buffer, value, [offset if lanes == 1 else tirx.Ramp(offset, 1, lanes)])


class Accumulators:
    """int32 vectors that LLVM keeps in registers: a local buffer of scalars, read by vectors.

    (TVM turns buffers with a scope of their own into workspace calls, and may not share storage
    between buffers of vectors.)
    """

    def __init__(self, count: int, lanes: int) -> None:
        """Declare ``count`` vectors of ``lanes`` int32; their contents are undefined."""
        self.lanes = lanes
        self.buffer = T.alloc_buffer((count * lanes,), "int32")

    def __getitem__(self, index: int) -> Expr:
        """Vector ``index``."""
        return load(self.buffer, index * self.lanes, self.lanes)

    def __setitem__(self, index: int, value: Expr) -> None:
        """Replace vector ``index``."""
        store(self.buffer, index * self.lanes, value, self.lanes)


def splat(value: Expr, lanes: int) -> Expr:
    """A scalar in every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def int32(value: int) -> Expr:
    """An int32 constant."""
    return tirx.const(value, "int32")
