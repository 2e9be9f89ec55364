"""Layouts: orders in which the elements of a tensor can lie in memory.

A layout lists the digits of the row-major index of an element, outermost in memory first. The
tensor's shape plays no part, so that a reshape leaves a layout as it is; a permutation of axes
changes the weights of its digits. Equal layouts are equal tuples.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

MEMORY = 1 << 14  # results that are remembered: searches ask for the same again and again

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Reshape:
    """View step: row-major reinterpretation as ``shape``."""

    shape: Shape


@dataclass(frozen=True)
class Permute:
    """View step: axis ``i`` of the result is axis ``axes[i]`` of the source."""

    axes: tuple[int, ...]


Step = Reshape | Permute


class Digit(NamedTuple):
    """One digit of a mixed-radix index.

    Attributes:
        weight: what a step of the digit adds to the row-major index.
        extent: its number of values, at least 2.
    """

    weight: int
    extent: int

    @property
    def end(self) -> int:
        """The weight of the next digit."""
        return self.weight * self.extent


Layout = tuple[Digit, ...]


def row_major(shape: Iterable[int]) -> Layout:
    """The layout of a tensor that lies as it is indexed."""
    size = prod(shape)
    return (Digit(1, size),) if size > 1 else ()


def canonical(digits: Iterable[Digit]) -> Layout:
    """Join digits that lie in memory as they are indexed."""
    joined: list[Digit] = []
    for digit in digits:
        if joined and joined[-1].weight == digit.end:
            digit = Digit(digit.weight, joined.pop().extent * digit.extent)
        joined.append(digit)
    return tuple(joined)


def split(layout: Layout, weights: Iterable[int]) -> Layout | None:
    """Digits that begin at all of ``weights``; None if one of them divides no digit."""
    digits = list(layout)
    for cut in set(weights):
        for position, (weight, extent) in enumerate(digits):
            if weight < cut < weight * extent:
                if cut % weight or weight * extent % cut:
                    return None
                inner = cut // weight
                digits[position : position + 1] = [
                    Digit(cut, extent // inner),
                    Digit(weight, inner),
                ]
                break
    return tuple(digits)


def by_axis(layout: Layout, shape: Shape) -> list[tuple[int, Digit]] | None:
    """Every digit with its axis, its weight counted within the axis.

    None if the axes of ``shape`` share a digit.
    """
    starts = strides(shape)
    digits = split(layout, starts)
    if digits is None:
        return None
    axes = [axis for axis, extent in enumerate(shape) if extent > 1]
    result: list[tuple[int, Digit]] = []
    for weight, extent in digits:
        axis = next(axis for axis in axes if starts[axis] <= weight)
        digit = Digit(weight // starts[axis], extent)
        if result and result[-1][0] == axis and result[-1][1].weight == digit.end:
            digit = Digit(digit.weight, result.pop()[1].extent * extent)
        result.append((axis, digit))
    return result


def strides(shape: Shape) -> Shape:
    """Row-major strides in elements."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


@lru_cache(MEMORY)
def along(layout: Layout, shape: Shape, other: Shape) -> Layout | None:
    """The layout of a tensor of another shape and equal rank that runs along with this one.

    Where it has extent 1, digits fall away; an axis of any other extent must be one digit.
    """
    parts = by_axis(layout, shape)
    if parts is None:
        return None
    starts = strides(other)
    digits = []
    for axis, (weight, extent) in parts:
        if other[axis] == 1:
            continue
        if other[axis] != shape[axis]:
            if extent != shape[axis]:
                return None
            extent = other[axis]
        digits.append(Digit(starts[axis] * weight, extent))
    return canonical(digits)


def shapes(source: Shape, steps: Iterable[Step]) -> list[Shape]:
    """The shape before a chain of views and after each of them."""
    result = [source]
    for step in steps:
        if isinstance(step, Reshape):
            result.append(step.shape)
        else:
            result.append(tuple(result[-1][axis] for axis in step.axes))
    return result


@lru_cache(MEMORY)
def chained(layout: Layout, source: Shape, steps: tuple[Step, ...]) -> Layout | None:
    """The same memory, indexed as after a chain of views of a tensor of shape ``source``.

    None if no digits express it.
    """
    extents = shapes(source, steps)
    for step, shape, result in zip(steps, extents[:-1], extents[1:], strict=True):
        if isinstance(step, Permute):
            parts = by_axis(layout, shape)
            if parts is None:
                return None
            weights = strides(result)
            layout = canonical(
                Digit(weights[step.axes.index(axis)] * weight, extent)
                for axis, (weight, extent) in parts
            )
    return layout


def backwards(source: Shape, steps: Sequence[Step]) -> list[Step]:
    """The chain of views that leads back to ``source``."""
    return [
        Reshape(shape)
        if isinstance(step, Reshape)
        else Permute(tuple(map(step.axes.index, range(len(step.axes)))))
        for step, shape in reversed(list(zip(steps, shapes(source, steps), strict=False)))
    ]


@dataclass(frozen=True)
class View:
    """What a chain of views does.

    Attributes:
        layout: how a row-major source lies in memory, by the index of the result.
        shape: of the result.
    """

    layout: Layout
    shape: Shape

    @property
    def moves_data(self) -> bool:
        """Whether it is more than a reinterpretation."""
        return self.layout != row_major(self.shape)


def normalize(source: Shape, steps: Sequence[Step]) -> View | None:
    """The normal form of ``steps`` on a tensor of shape ``source``.

    None if the chain takes more than one permutation.
    """
    layout = chained(row_major(source), source, tuple(steps))
    return None if layout is None else View(layout, shapes(source, steps)[-1])


@lru_cache(MEMORY)
def transposition(have: Layout, want: Layout) -> tuple[Shape, tuple[int, ...]] | None:
    """The shape and the permutation of its axes that turn one layout into another.

    None if it takes more than one permutation.
    """
    source = split(have, (digit.weight for digit in want))
    target = split(want, (digit.weight for digit in have))
    if source is None or target is None:
        return None
    runs: list[list[int]] = []
    for index in map(source.index, target):
        if runs and runs[-1][-1] + 1 == index:
            runs[-1].append(index)
        else:
            runs.append([index])
    ordered = sorted(runs)
    shape = tuple(prod(source[index].extent for index in run) for run in ordered)
    return shape, tuple(map(ordered.index, runs))


def keeps_rows(have: Layout, want: Layout) -> bool:
    """Whether what is innermost in memory stays innermost."""
    return not have or not want or have[-1].weight == want[-1].weight
