"""Compute only what is read: where a tensor is read in part, its producer makes that part.

A vision transformer reads one token after its last block, which then computes one token only.
"""

from math import prod

import numpy as np
import tvm
from tvm import relax

from tvm_passes.graph.layout_rules import space_of, tensors_of, with_tensors
from tvm_passes.graph.moves import sliced_range
from tvm_passes.graph.view_algebra import by_axis, normalize, strides
from tvm_passes.graph.views import is_view, view_step
from tvm_passes.lowering.quantized import array_of, is_call, is_integer_call
from tvm_passes.ops.base import TensorSpec, config_of
from tvm_passes.rewrite import MAIN, Scope, main_bindings, rewrite_main

Box = tuple[tuple[int, int], ...]  # per axis the first element that is meant, and the end


def crop_unread(mod: tvm.IRModule) -> tvm.IRModule:
    """The same result from as much of every tensor as it needs."""
    boxes = _boxes(mod)
    bindings = iter([item for item in main_bindings(mod) if isinstance(item.value, relax.Call)])

    def rule(scope: Scope, call: relax.Call) -> relax.Expr:
        """Variables now hold what is computed of a tensor."""
        binding = next(bindings)
        old, box = binding.value, boxes[binding.var]
        tensors = [
            _cropped(scope, new, boxes.get(tensor, _whole(tensor)), part)
            for tensor, new, part in zip(
                tensors_of(old), tensors_of(call), _operands(old, box), strict=True
            )
        ]
        if is_call(old, "relax.strided_slice") and _is_box(old):
            return tensors[0]
        if is_call(old, "relax.reshape"):
            return relax.op.reshape(tensors[0], [end - start for start, end in box])
        return with_tensors(old, tensors)

    return rewrite_main(mod, rule)


def _boxes(mod: tvm.IRModule) -> dict[relax.Expr, Box]:
    """The part of every tensor that is computed."""
    result = mod[MAIN].body.body
    read: dict[relax.Expr, Box] = {result: _whole(result)}
    computed: dict[relax.Expr, Box] = {}

    def note(tensor: relax.Expr, part: Box) -> None:
        if isinstance(tensor, relax.Var):
            read[tensor] = _hull(read[tensor], part) if tensor in read else part

    for binding in reversed(main_bindings(mod)):
        var, value = binding.var, binding.value
        box = read.get(var, _whole(var))
        if isinstance(value, relax.Call):
            box = _whole(var) if _parts(value, box) is None else box
            for tensor, part in zip(tensors_of(value), _operands(value, box), strict=True):
                note(tensor, part)
        note(value, box)
        computed[var] = box
    return computed


def _whole(tensor: relax.Expr) -> Box:
    return tuple((0, extent) for extent in TensorSpec.of(tensor).shape)


def _hull(a: Box, b: Box) -> Box:
    return tuple((min(i[0], j[0]), max(i[1], j[1])) for i, j in zip(a, b, strict=True))


def _cropped(scope: Scope, tensor: relax.Expr, have: Box, want: Box) -> relax.Expr:
    """The part ``want`` of a tensor of which ``have`` was computed."""
    if have == want:
        return tensor
    values = array_of(tensor)
    if values is not None:
        return relax.const(np.ascontiguousarray(values[tuple(slice(*ends) for ends in want)]))
    axes = [axis for axis in range(len(have)) if have[axis] != want[axis]]
    begins = [want[axis][0] - have[axis][0] for axis in axes]
    ends = [want[axis][1] - have[axis][0] for axis in axes]
    return scope.emit(relax.op.strided_slice(tensor, axes, begins, ends))


def _operands(expr: relax.Call, box: Box) -> list[Box]:
    """The parts of the operands from which a part of the result is computed."""
    parts = _parts(expr, box)
    return [_whole(tensor) for tensor in tensors_of(expr)] if parts is None else parts


def _parts(expr: relax.Call, box: Box) -> list[Box] | None:
    """Like ``_operands``; None if the operator cannot compute only a part."""
    if is_view(expr):
        return _parts_of_view(expr, box)
    if is_call(expr, "relax.strided_slice"):
        return _parts_of_slice(expr, box)
    if is_integer_call(expr, "matmul"):
        return _parts_of_product(expr, box)
    return _parts_of_space(expr, box)


def _parts_of_slice(expr: relax.Call, box: Box) -> list[Box] | None:
    if not _is_box(expr):
        return None
    starts = {axis: cut.start for axis, cut in sliced_range(expr).items()}
    return [
        tuple(
            (start + starts.get(axis, 0), end + starts.get(axis, 0))
            for axis, (start, end) in enumerate(box)
        )
    ]


def _is_box(expr: relax.Call) -> bool:
    return all(cut.step == 1 for cut in sliced_range(expr).values())


def _parts_of_view(expr: relax.Call, box: Box) -> list[Box] | None:
    """An axis can be cropped that is an axis of the source too."""
    (source,) = tensors_of(expr)
    shape, out = TensorSpec.of(source).shape, TensorSpec.of(expr).shape
    view = normalize(shape, [view_step(expr)])
    digits = None if view is None else by_axis(view.layout, out)
    axes = {item: axis for axis, item in enumerate(zip(strides(shape), shape, strict=True))}
    part = list(_whole(source))
    for axis, ends in enumerate(box):
        if ends == (0, out[axis]):
            continue
        places = [place for place, (owner, _) in enumerate(digits or []) if owner == axis]
        if digits is None or len(places) != 1:
            return None
        stride = prod(digit.extent for _, digit in digits[places[0] + 1 :])
        if (stride, out[axis]) not in axes:
            return None
        part[axes[stride, out[axis]]] = ends
    return [tuple(part)]


def _parts_of_product(expr: relax.Call, box: Box) -> list[Box] | None:
    """Batches and rows of a can be cropped, and heads that all have one multiplier."""
    a, b = map(_whole, tensors_of(expr))
    if box[-1] != _whole(expr)[-1] or a[:-2] != b[:-2]:
        return None
    if isinstance(config_of(expr).multiplier, tuple) and box[-3] != a[-3]:
        return None
    return [(*box[:-1], a[-1]), (*box[:-2], *b[-2:])]


def _parts_of_space(expr: relax.Call, box: Box) -> list[Box] | None:
    """Axes can be cropped that the result shares with the operator's index space."""
    space = space_of(expr)
    if space.result is None or len(space.result) != len(box):
        return None
    shared = [
        extent == space.result[axis]
        and axis not in space.undivided
        and not (space.rows and axis == len(box) - 1)
        for axis, extent in enumerate(space.shape)
    ]
    cropped = [part != ends for part, ends in zip(box, _whole(expr), strict=True)]
    if any(crop and not common for crop, common in zip(cropped, shared, strict=True)):
        return None
    parts = []
    for tensor, shape in zip(tensors_of(expr), space.operands, strict=True):
        part = _whole(tensor)
        if shape is not None:
            padded = [
                ends if common and shape[axis] == space.shape[axis] else (0, shape[axis])
                for axis, (ends, common) in enumerate(zip(box, shared, strict=True))
            ]
            part = tuple(padded[len(box) - len(part) :])
        parts.append(part)
    return parts
