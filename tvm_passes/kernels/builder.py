"""Small helpers around TVM's IRBuilder, in which the kernels are written."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.isa import Isa
from tvm_passes.ops.base import TensorSpec

Form = tuple[int, Callable[..., Expr]]


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


def lanes_of(value: Expr) -> int:
    """Number of lanes of an expression."""
    return int(str(value.ty.dtype).partition("x")[2] or 1)


def lane_slice(value: Expr, start: int, lanes: int) -> Expr:
    """``lanes`` consecutive lanes of a vector."""
    if lanes_of(value) == lanes:
        return value
    if isinstance(value, tirx.Broadcast):
        return splat(value.value, lanes)
    if isinstance(value, tirx.Shuffle) and start % lanes == 0 and _is_join(value, lanes):
        return value.vectors[start // lanes]
    return tirx.Shuffle([value], [int32(lane) for lane in range(start, start + lanes)])


def _is_join(value: tirx.Shuffle, lanes: int) -> bool:
    """Whether ``value`` is a plain sequence of vectors of ``lanes`` lanes."""
    parts = value.vectors
    return lanes_of(value) == len(parts) * lanes and lanes_of(parts[0]) == lanes


def join(parts: Sequence[Expr]) -> Expr:
    """One vector of the lanes of all ``parts``, which are alike."""
    if len(parts) == 1:
        return parts[0]
    total = sum(map(lanes_of, parts))
    first = parts[0]
    if isinstance(first, tirx.Broadcast) and all(part is first for part in parts):
        return splat(first.value, total)
    return tirx.Shuffle(list(parts), [int32(lane) for lane in range(total)])


def by_register(lanes: int, compute: Callable[..., Expr], *values: Expr) -> Expr | None:
    """``compute`` on pieces of ``lanes`` lanes, joined again; None if the vectors do not divide.

    Pieces are bound to names: an expression that were copied into each of them would grow beyond
    what TVM's passes walk through in reasonable time.
    """
    total = lanes_of(values[0])
    if total % lanes:
        return None
    if total > lanes:
        values = tuple(named(value) for value in values)
    pieces = [
        T.bind(compute(*(lane_slice(value, start, lanes) for value in values)))
        for start in range(0, total, lanes)
    ]
    return join(pieces)


def native(isa: Isa, forms: Mapping[str, Form], *values: Expr) -> Expr | None:
    """An instruction of the ISA's own, register by register.

    Args:
        isa: instruction set.
        forms: for some ``Isa.simd`` the lanes of a register and what computes one.
        values: operands, vectors of equal length.

    Returns:
        None where there is no such form, or the vectors do not divide into registers.
    """
    if isa.simd is None or isa.simd not in forms:
        return None
    lanes, compute = forms[isa.simd]
    return by_register(lanes, compute, *values)


def named(value: Expr) -> Expr:
    """``value``, bound to a name unless it is as good as one."""
    if isinstance(value, tirx.Var | tirx.Broadcast | tirx.Shuffle):
        return value
    return T.bind(value)


def splat(value: Expr, lanes: int) -> Expr:
    """A scalar in every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def int32(value: int) -> Expr:
    """An int32 constant."""
    return tirx.const(value, "int32")
