"""In which layouts each operator can work, and what it then reads and writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

from tvm import relax

from tvm_passes.graph.moves import sliced_range
from tvm_passes.graph.view_algebra import Digit, Layout, Shape, along, by_axis, canonical, row_major
from tvm_passes.ops.base import TensorSpec, call, config_of, operator_of

UNARY = frozenset({"lut", "pwl", "pwl8", "requantize", "adalog_quantize", "twin"})
BINARY = frozenset({"add", "mul"})

Build = Callable[["Space", Layout, list[relax.Expr]], relax.Call]


@dataclass(frozen=True)
class Space:
    """The index space that an operator's loops run over; the operator's layout is its layout.

    Attributes:
        shape: extents of the space.
        operands: per tensor that the operator reads its shape, with as many axes as the space.
            None: it is read row-major.
        result: likewise of the result.
        build: the operator on operands that lie in a layout of the space.
        undivided: axes that stay one axis in memory.
        rows: the last axis stays a row, innermost in memory.
        ordered: the order of a row's elements matters.
        named: the configuration names axes.
    """

    shape: Shape
    operands: tuple[Shape | None, ...]
    result: Shape | None
    build: Build
    undivided: tuple[int, ...] = ()
    rows: bool = False
    ordered: bool = False
    named: bool = False

    def accepts(self, layout: Layout) -> bool:
        """Whether the operator can work in ``layout``."""
        if layout == row_major(self.shape):
            return True
        parts = by_axis(layout, self.shape)
        if parts is None:
            return False
        last = len(self.shape) - 1
        row = [digit for axis, digit in parts if axis == last]
        if self.rows and [axis for axis, _ in parts[len(parts) - len(row) :]] != [last] * len(row):
            return False
        if self.ordered and len(row) > 1:
            return False
        axes = [axis for axis, _ in parts]
        if any(axes.count(axis) > 1 for axis in self.undivided):
            return False
        tensors = [shape for shape in (*self.operands, self.result) if shape is not None]
        return all(_covers(along(layout, self.shape, shape), shape) for shape in tensors)

    def fitting(self, layout: Layout) -> Layout | None:
        """A layout in which the operator can work, as like ``layout`` as possible."""
        return layout if self.accepts(layout) else None

    def axes(self, layout: Layout) -> list[tuple[int, int]]:
        """The axes in memory, as axis of the space and extent: those of extent 1, then digits."""
        last = len(self.shape) - 1 if self.rows else None
        axes = [(axis, 1) for axis, extent in enumerate(self.shape) if extent == 1 and axis != last]
        for axis, digit in by_axis(layout, self.shape) or []:
            if axis != last:
                axes.append((axis, digit.extent))
        return axes if last is None else [*axes, (last, self.shape[last])]

    def physical(self, layout: Layout, shape: Shape) -> Shape:
        """Extents in memory of a tensor whose axes are those of the space."""
        return tuple(
            extent if shape[axis] == self.shape[axis] else shape[axis]
            for axis, extent in self.axes(layout)
        )

    def works_on(self, shape: Shape) -> bool:
        """Whether the operator may run over memory of ``shape`` as it is.

        An operator that tells no axes apart, save the last one where there are rows, may.
        """
        if self.named or self.result is None or (self.rows and shape[-1:] != self.shape[-1:]):
            return False
        return all(operand in (self.shape, None) for operand in self.operands)

    def position(self, layout: Layout, axis: int) -> int:
        """The axis in memory that an undivided axis of the space becomes."""
        return [part for part, _ in self.axes(layout)].index(axis)


def _covers(layout: Layout | None, shape: Shape) -> bool:
    return layout is not None and prod(digit.extent for digit in layout) == prod(shape)


def tensors_of(expr: relax.Call) -> list[relax.Expr]:
    """All tensors among the arguments, those of tuples included."""
    items = [item for argument in expr.args for item in _items(argument)]
    return [item for item in items if _is_tensor(item)]


def with_tensors(expr: relax.Call, tensors: Sequence[relax.Expr]) -> relax.Call:
    """The same operator on other tensors."""
    new = iter(tensors)

    def renewed(argument: relax.Expr) -> relax.Expr:
        if isinstance(argument, relax.Tuple):
            return relax.Tuple([renewed(item) for item in argument.fields])
        return next(new) if _is_tensor(argument) else argument

    return relax.Call(expr.op, [renewed(item) for item in expr.args], expr.attrs, expr.ty_args)


def _is_tensor(expr: relax.Expr) -> bool:
    return isinstance(getattr(expr, "ty", None), relax.TensorType)


def _items(argument: relax.Expr) -> list[relax.Expr]:
    return list(argument.fields) if isinstance(argument, relax.Tuple) else [argument]


def space_of(expr: relax.Call) -> Space:
    """How an operator can work; one that no rule knows reads and writes row-major tensors."""
    operator = operator_of(expr)
    name = str(getattr(expr.op, "name", "")) if operator is None else operator.name
    shapes = [TensorSpec.of(tensor).shape for tensor in tensors_of(expr)]
    return RULES[name](expr, shapes) if name in RULES else rigid(len(shapes))


def is_pointwise(expr: relax.Expr) -> bool:
    """Whether an operator works element by element, in any layout."""
    operator = operator_of(expr)
    return operator is not None and operator.name in UNARY | BINARY


def rigid(operands: int) -> Space:
    """What reads and writes row-major tensors only."""

    def build(space: Space, layout: Layout, operands: list[relax.Expr]) -> relax.Call:
        raise ValueError("a rigid operator has no layout but its own")

    return Space((), (None,) * operands, None, build)


def _same(expr: relax.Call) -> Build:
    return lambda space, layout, operands: with_tensors(expr, operands)


def _pointwise(expr: relax.Call, shapes: list[Shape], operands: int) -> Space:
    """Operands broadcast like NumPy's; tables follow them."""
    out = TensorSpec.of(expr).shape
    read = [(1,) * (len(out) - len(shape)) + shape for shape in shapes[:operands]]
    tables = (None,) * (len(shapes) - operands)
    return Space(out, (*read, *tables), out, _same(expr))


def _channels(expr: relax.Call, shapes: list[Shape], operands: int) -> Space:
    """Factors lie along the last axis."""
    return replace(_pointwise(expr, shapes, operands), rows=True, ordered=True)


def _rows(expr: relax.Call, shapes: list[Shape]) -> Space:
    """Rows, and the elements of all rows alike, may come in any order."""
    return replace(_pointwise(expr, shapes, len(shapes)), rows=True)


def _linear(expr: relax.Call, shapes: list[Shape]) -> Space:
    """Rows may come in any order."""
    x, *constants = shapes
    operands = (x, *(None for _ in constants))
    return Space(x, operands, TensorSpec.of(expr).shape, _same(expr), rows=True, ordered=True)


def _mean(expr: relax.Call, shapes: list[Shape]) -> Space:
    config = config_of(expr)
    (x,) = shapes
    axes = {axis % len(x) for axis in config.axes}
    out = tuple(1 if axis in axes else extent for axis, extent in enumerate(x))

    def build(space: Space, layout: Layout, operands: list[relax.Expr]) -> relax.Call:
        parts = enumerate(space.axes(layout))
        reduced = tuple(position for position, (axis, _) in parts if axis in axes)
        return call("mean", replace(config, axes=reduced), *operands)

    return Space(x, (x,), out, build, named=True)


def _concat(expr: relax.Call, shapes: list[Shape]) -> Space:
    out = TensorSpec.of(expr).shape
    axis = int(expr.attrs.axis) % len(out)
    return Space(
        out,
        tuple(shapes),
        out,
        lambda space, layout, operands: relax.op.concat(operands, space.position(layout, axis)),
        undivided=(axis,),
        named=True,
    )


def _slice(expr: relax.Call, shapes: list[Shape]) -> Space:
    (x,) = shapes
    cuts = {axis: (cut.start, cut.stop, cut.step) for axis, cut in sliced_range(expr).items()}

    def build(space: Space, layout: Layout, operands: list[relax.Expr]) -> relax.Call:
        parts = {space.position(layout, axis): cut for axis, cut in cuts.items()}
        return relax.op.strided_slice(
            *operands, list(parts), *map(list, zip(*parts.values(), strict=True))
        )

    return Space(x, (x,), TensorSpec.of(expr).shape, build, undivided=tuple(cuts), named=True)


class _Oriented(Space):
    """The second operand of a product, of which rows or columns may lie innermost."""

    def fitting(self, layout: Layout) -> Layout | None:
        *batch, rows, columns = self.shape
        if min(rows, columns) == 1 or layout[-1].weight != columns:
            return row_major(self.shape)
        turned = Digit(rows * columns, prod(batch)), Digit(1, columns), Digit(columns, rows)
        return canonical(digit for digit in turned if digit.extent > 1)

    def physical(self, layout: Layout, shape: Shape) -> Shape:
        *batch, rows, columns = shape
        return (*batch, columns, rows)


def _matmul(expr: relax.Call, shapes: list[Shape]) -> Space:
    config = config_of(expr)
    turned = replace(config, transpose_b=not config.transpose_b)
    return _Oriented(
        shapes[1],
        (None, shapes[1]),
        None,
        lambda space, layout, operands: call("matmul", turned, *operands),
    )


RULES: dict[str, Callable[[relax.Call, list[Shape]], Space]] = {
    **dict.fromkeys(UNARY, lambda expr, shapes: _pointwise(expr, shapes, 1)),
    **dict.fromkeys(BINARY, lambda expr, shapes: _pointwise(expr, shapes, 2)),
    "dynamic_relu": lambda expr, shapes: _pointwise(expr, shapes, 3),
    "scaled_add": lambda expr, shapes: _channels(expr, shapes, 2),
    "scale_channels": lambda expr, shapes: _channels(expr, shapes, 1),
    "requantize_channels": lambda expr, shapes: _channels(expr, shapes, 1),
    "softmax": _rows,
    "layer_norm": _rows,
    "linear": _linear,
    "mean": _mean,
    "matmul": _matmul,
    "relax.concat": _concat,
    "relax.strided_slice": _slice,
}
