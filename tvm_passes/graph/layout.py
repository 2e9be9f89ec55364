"""Make reshapes and permutations vanish.

Every operator gets a layout to work in, so that its operands and its result lie in memory as its
neighbours leave and want them. Permutations remain where that cannot be.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from tvm_passes.graph.layout_rules import Space, rigid, space_of, tensors_of, with_tensors
from tvm_passes.graph.layout_search import LayoutSearch, Node, Read
from tvm_passes.graph.view_algebra import (
    Layout,
    Shape,
    Step,
    along,
    backwards,
    normalize,
    row_major,
    shapes,
    transposition,
)
from tvm_passes.graph.views import apply, is_view, relayout, reshaped, trace, view_step
from tvm_passes.lowering.quantized import array_of
from tvm_passes.ops.base import TensorSpec
from tvm_passes.rewrite import MAIN, Scope, main_bindings, rewrite_main


def assign_layouts(mod: tvm.IRModule) -> tvm.IRModule:
    """The same computation, with as few bytes moved as the search finds."""
    graph = Graph(mod)
    search = LayoutSearch(graph.nodes)
    search.run()
    return rebuild(mod, graph, search)


def rebuild(mod: tvm.IRModule, graph: "Graph", search: LayoutSearch) -> tvm.IRModule:
    """``mod`` with every operator in the layout that a search has given it."""
    moved: dict[tuple[relax.Expr, Layout], relax.Expr] = {}
    order = iter(graph.order)

    def operand(scope: Scope, index: int, position: int, memory: relax.Expr) -> relax.Expr:
        """The memory of an operand, in the layout that its operator wants."""
        read = graph.nodes[index].reads[position]
        if read is None:
            return memory
        want = search.wanted(index, position)
        assert want is not None  # or it would cost too much
        key = memory, want
        if key not in moved:
            moved[key] = relayout(scope, memory, search.given(read.producer), want)
        return moved[key]

    def rule(scope: Scope, call: relax.Call) -> relax.Expr:
        """Variables now hold the memory of a tensor, in its layout and in any shape."""
        index = next(order)
        if index is None:
            return call.args[0]
        operands = [operand(scope, index, i, item) for i, item in enumerate(tensors_of(call))]
        space, layout = graph.nodes[index].space, search.layouts[index]
        return _perform(scope, graph.calls[index], space, layout, operands)

    def finish(scope: Scope, result: relax.Expr) -> relax.Expr:
        last = len(graph.nodes) - 1
        return reshaped(scope, operand(scope, last, 0, result), graph.nodes[last].shape)

    return rewrite_main(mod, rule, finish=finish)


def collapse_views(scope: Scope, expr: relax.Call) -> relax.Expr | None:
    """Rule: a chain of views becomes one that takes at most one permutation."""
    if not is_view(expr):
        return None
    root, steps = trace(scope, expr.args[0])
    view = normalize(TensorSpec.of(root).shape, [*steps, view_step(scope.builder.normalize(expr))])
    return None if view is None else apply(scope, root, view)


class Graph:
    """``main`` without its views.

    Attributes:
        nodes: parameters, operators in order, and at the end what reads the result.
        calls: the operator of each node that has one.
        order: for every call of ``main`` its node, or None if it is a view that vanishes.
    """

    def __init__(self, mod: tvm.IRModule) -> None:
        """Read a module whose ``main`` is straight-line code."""
        self.nodes: list[Node] = []
        self.calls: dict[int, relax.Call] = {}
        self.order: list[int | None] = []
        self._sources: dict[relax.Var, tuple[int, tuple[Step, ...]]] = {}
        main = mod[MAIN]
        for param in main.params:
            self._sources[param] = self._add(param, ()), ()
        for binding in main_bindings(mod):
            if isinstance(binding.value, relax.Var):
                self._sources[binding.var] = self._sources[binding.value]
            elif isinstance(binding.value, relax.Call):
                self._bind(binding.var, binding.value)
        self._add(main.body.body, [main.body.body])

    def _bind(self, var: relax.Var, call: relax.Call) -> None:
        if is_view(call) and isinstance(call.args[0], relax.Var):
            producer, steps = self._sources[call.args[0]]
            chain = (*steps, view_step(call))
            if _is_one_permutation(self.nodes[producer].shape, chain):
                self._sources[var] = producer, chain
                self.order.append(None)
                return
        index = self._add(var, tensors_of(call), space_of(call))
        self.calls[index] = call
        self._sources[var] = index, ()
        self.order.append(index)

    def _read(self, operand: relax.Var) -> Read:
        producer, steps = self._sources[operand]
        back = tuple(backwards(self.nodes[producer].shape, steps))
        return Read(producer, steps, back, TensorSpec.of(operand).shape)

    def _add(
        self, result: relax.Expr, operands: Sequence[relax.Expr], space: Space | None = None
    ) -> int:
        reads = tuple(
            self._read(operand) if isinstance(operand, relax.Var) else None for operand in operands
        )
        self.nodes.append(Node(space or rigid(len(reads)), reads, *_size(result)))
        return len(self.nodes) - 1


def _is_one_permutation(source: Shape, chain: tuple[Step, ...]) -> bool:
    """Whether digits express what a chain of views does, seen from either end."""
    back, end = backwards(source, chain), shapes(source, chain)[-1]
    return normalize(source, chain) is not None and normalize(end, back) is not None


def _size(expr: relax.Expr) -> tuple[Shape, int]:
    """Shape and bytes."""
    spec = TensorSpec.of(expr)
    return spec.shape, prod(spec.shape) * np.dtype(spec.dtype).itemsize


def _perform(
    scope: Scope, call: relax.Call, space: Space, layout: Layout, operands: list[relax.Expr]
) -> relax.Call:
    """``call`` on operands that lie in the layouts that it wants."""
    extents = [TensorSpec.of(tensor).shape for tensor in tensors_of(call)]
    if layout == row_major(space.shape):
        return with_tensors(
            call, [reshaped(scope, *item) for item in zip(operands, extents, strict=True)]
        )
    first = TensorSpec.of(operands[0]).shape
    tensors = []
    for operand, shape, axes in zip(operands, extents, space.operands, strict=True):
        if axes is not None:
            shape = first if space.works_on(first) else space.physical(layout, axes)
            values = array_of(operand)
            if values is not None:
                want = along(layout, space.shape, axes)
                operand = relax.const(_arranged(values, want).reshape(shape))
        tensors.append(reshaped(scope, operand, shape))
    return space.build(space, layout, tensors)


def _arranged(values: NDArray[Any], want: Layout | None) -> NDArray[Any]:
    """A constant in another layout."""
    turn = None if want is None else transposition(row_major(values.shape), want)
    assert turn is not None  # a row-major layout can become any other
    shape, axes = turn
    return np.ascontiguousarray(values.reshape(shape).transpose(axes))
