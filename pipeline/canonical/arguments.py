"""Every call gets its arguments in one form: positional, complete, dimensions not negative."""

from typing import Any

from pipeline.canonical.graph import (
    CAT,
    CONV,
    GROUP_NORM,
    LAYER_NORM,
    LINEAR,
    MEAN,
    SELECT,
    SLICE,
    SOFTMAX,
    GraphModule,
    Node,
    Target,
    aten,
    calls,
    shape,
)

_POOL = aten.avg_pool2d.default
_ARITY: dict[Target, int] = {
    CONV: 7,
    LINEAR: 3,
    LAYER_NORM: 5,
    GROUP_NORM: 5,
    SLICE: 5,
    MEAN: 3,
    CAT: 2,
    _POOL: 7,
    aten.constant_pad_nd.default: 3,
    aten.hardtanh.default: 3,
    aten.roll.default: 3,
}
"""Number of positional arguments to spell out; later ones (hints to GPU libraries) are dropped."""

_DIMENSION: dict[Target, int] = {SELECT: 1, SLICE: 1, SOFTMAX: 1, MEAN: 1, CAT: 1}
"""Position of the argument that counts dimensions."""


def spell_out_arguments(gm: GraphModule) -> None:
    """Brings the arguments of the canonical operators to their one form."""
    for node in calls(gm):
        if node.target in _ARITY:
            values = _positional(node)[: _ARITY[node.target]]
            node.args, node.kwargs = tuple(values), {}
        if node.target in _DIMENSION and len(node.args) > _DIMENSION[node.target]:
            _make_dimensions_positive(node)
        if node.target is SLICE:
            _make_bounds_positive(node)
        elif node.target in (CONV, _POOL):
            _make_pairs(node)


def _positional(node: Node) -> list[Any]:
    schema = node.target._schema  # type: ignore[union-attr]
    values: list[Any] = list(node.args)
    for argument in schema.arguments[len(values) :]:
        values.append(node.kwargs.get(argument.name, argument.default_value))
    return values


def _make_dimensions_positive(node: Node) -> None:
    source = node.args[0]
    rank = len(shape(source[0] if isinstance(source, list | tuple) else source))  # type: ignore[arg-type]
    position = _DIMENSION[node.target]  # type: ignore[index]
    dims: Any = node.args[position]
    if node.target is MEAN and not dims:
        dims = list(range(rank))
    positive = [d % rank for d in dims] if isinstance(dims, list | tuple) else dims % rank
    node.update_arg(position, positive)
    if node.target is SELECT:
        size = shape(node.args[0])[positive]  # type: ignore[arg-type,index]
        node.update_arg(2, node.args[2] % size)  # type: ignore[operator]


def _make_bounds_positive(node: Node) -> None:
    source, dim, start, stop, step = node.args
    size = shape(source)[dim]  # type: ignore[arg-type,index]
    start, stop, step = slice(start, stop, step).indices(size)
    node.args = (source, dim, start, stop, step)


def _make_pairs(node: Node) -> None:
    """Writes kernel, stride, padding and dilation as `[vertical, horizontal]`."""
    fields = (3, 4, 5) if node.target is CONV else (1, 2, 3)
    for position in fields:
        value: Any = node.args[position]
        if not value and node.target is _POOL and position == 2:
            value = node.args[1]  # an average pool's stride defaults to its kernel
        pair = [value, value] if isinstance(value, int) else list(value)
        node.update_arg(position, pair * 2 if len(pair) == 1 else pair)
