"""Relax operators that only move data, as strided copies."""

from itertools import accumulate

from tvm import relax

from tvm_passes.kernels.movement import Copy, row_major
from tvm_passes.lowering.quantized import is_call
from tvm_passes.ops.base import TensorSpec


def copies_of(expr: relax.Expr) -> tuple[Copy, ...] | None:
    """The copies that a permutation, a slice or a join consists of, one per tensor that it reads.

    None for every other operator.
    """
    if is_call(expr, "relax.permute_dims"):
        spec = TensorSpec.of(expr.args[0])
        reads = row_major(spec.shape)
        axes = permuted_axes(expr)
        extents = tuple(spec.shape[axis] for axis in axes)
        return (Copy(extents, tuple(reads[axis] for axis in axes), row_major(extents)),)
    if is_call(expr, "relax.strided_slice"):
        return (_slice(expr),)
    if is_call(expr, "relax.concat"):
        return _join(expr)
    return None


def permuted_axes(permutation: relax.Call) -> tuple[int, ...]:
    """Axes of a ``permute_dims``, not negative; none given means reversed."""
    rank = len(TensorSpec.of(permutation.args[0]).shape)
    axes = permutation.attrs.axes
    return tuple(range(rank))[::-1] if axes is None else tuple(int(axis) % rank for axis in axes)


def sliced_range(expr: relax.Call) -> dict[int, slice]:
    """What a ``strided_slice`` keeps of its axes, as slices without negative numbers."""
    shape = TensorSpec.of(expr.args[0]).shape
    axes, begins, ends, *strides = ([int(item) for item in arg.fields] for arg in expr.args[1:])
    steps = strides[0] if strides else [1] * len(axes)
    kept = {}
    for axis, begin, end, step in zip(axes, begins, ends, steps, strict=True):
        axis %= len(shape)
        start, stop, step = slice(begin, end, step).indices(shape[axis])
        kept[axis] = slice(start, stop, step)
    return kept


def _slice(expr: relax.Call) -> Copy:
    strides = row_major(TensorSpec.of(expr.args[0]).shape)
    kept = sliced_range(expr)
    out = TensorSpec.of(expr).shape
    reads = tuple(
        stride * (kept[axis].step if axis in kept else 1) for axis, stride in enumerate(strides)
    )
    first = sum(strides[axis] * cut.start for axis, cut in kept.items())
    return Copy(out, reads, row_major(out), first)


def _join(expr: relax.Call) -> tuple[Copy, ...]:
    out = TensorSpec.of(expr).shape
    axis = int(expr.attrs.axis) % len(out)
    shapes = [TensorSpec.of(part).shape for part in expr.args[0].fields]
    starts = accumulate((shape[axis] for shape in shapes[:-1]), initial=0)
    writes = row_major(out)
    return tuple(
        Copy(shape, row_major(shape), writes, first_write=start * writes[axis])
        for shape, start in zip(shapes, starts, strict=True)
    )
