"""Chains of reshapes and permutations in normal form: split, permute, merge.

Every such chain splits the source's axes into factors, permutes the factors, and merges them
again. Two chains with the same normal form are the same view; one whose permutation is the
identity moves no data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import prod

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Reshape:
    """View step: row-major reinterpretation as ``shape``."""

    shape: Shape


@dataclass(frozen=True)
class Permute:
    """View step: axis ``i`` of the result is axis ``axes[i]`` of the source."""

    axes: tuple[int, ...]


@dataclass(frozen=True)
class View:
    """Normal form: reshape to ``split``, permute by ``axes``, reshape to ``shape``."""

    split: Shape
    axes: tuple[int, ...]
    shape: Shape

    @property
    def moves_data(self) -> bool:
        """Whether the permutation is more than a reinterpretation."""
        return self.axes != tuple(range(len(self.axes)))

    def inverse(self, source: Shape) -> "View":
        """The view that leads back to ``source``, the shape that this one starts from."""
        back = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
        return View(tuple(self.split[axis] for axis in self.axes), back, source)

    def steps(self, source: Shape) -> list[Reshape | Permute]:
        """The steps from ``source``; only a permutation moves data."""
        if not self.moves_data:
            return [] if source == self.shape else [Reshape(self.shape)]
        result: list[Reshape | Permute] = []
        if self.split != source:
            result.append(Reshape(self.split))
        result.append(Permute(self.axes))
        if tuple(self.split[axis] for axis in self.axes) != self.shape:
            result.append(Reshape(self.shape))
        return result


def as_permutation(source: Shape, view: View) -> tuple[int, ...] | None:
    """The axes of a plain permutation of ``source`` that equals ``view``, if there is one."""
    if sorted(source) != sorted(view.shape):
        return None
    for axes in permutations(range(len(source))):
        if tuple(source[axis] for axis in axes) == view.shape:
            if normalize(source, [Permute(axes)]) == view:
                return axes
    return None


class _Factor:
    """One factor of the source's axes; identity matters."""

    def __init__(self, size: int) -> None:
        self.size = size


def normalize(source: Shape, steps: Sequence[Reshape | Permute]) -> View | None:
    """Normal form of ``steps`` applied to ``source``.

    Returns:
        None if a reshape cuts across factors that have been permuted apart, so that the chain is
        no single permutation of factors.
    """
    order = [_Factor(size) for size in source]
    axes = [[factor] for factor in order]
    for step in steps:
        if isinstance(step, Permute):
            axes = [axes[axis] for axis in step.axes]
            continue
        reshaped = _regroup([factor for axis in axes for factor in axis], step.shape, order)
        if reshaped is None:
            return None
        axes = reshaped
    return _merge(order, axes)


def _regroup(
    factors: list[_Factor], shape: Shape, order: list[_Factor]
) -> list[list[_Factor]] | None:
    """Distribute ``factors`` over the axes of ``shape``, splitting factors where needed."""
    pending = _rejoin([factor for factor in factors if factor.size != 1], order)[::-1]
    axes: list[list[_Factor]] = []
    for size in shape:
        axis: list[_Factor] = []
        while size > 1:
            factor = pending.pop()
            if size % factor.size == 0:
                size //= factor.size
                axis.append(factor)
                continue
            if factor.size % size:
                return None
            outer, inner = _Factor(size), _Factor(factor.size // size)
            position = order.index(factor)
            order[position : position + 1] = [outer, inner]
            axis.append(outer)
            pending.append(inner)
            size = 1
        axes.append(axis)
    return axes


def _rejoin(factors: list[_Factor], order: list[_Factor]) -> list[_Factor]:
    """Join factors that are neighbours in the source, in ``order`` too."""
    order[:] = [factor for factor in order if factor.size != 1]
    joined: list[_Factor] = []
    for factor in factors:
        position = order.index(factor)
        if joined and position and order[position - 1] is joined[-1]:
            joined[-1] = _Factor(joined[-1].size * factor.size)
            order[position - 1 : position + 1] = [joined[-1]]
        else:
            joined.append(factor)
    return joined


def _merge(order: list[_Factor], axes: list[list[_Factor]]) -> View:
    """Drop unit factors and join factors that stay neighbours."""
    shape = tuple(prod(factor.size for factor in axis) for axis in axes)
    source = [factor for factor in order if factor.size != 1]
    rank = {factor: index for index, factor in enumerate(source)}
    target = [rank[factor] for axis in axes for factor in axis if factor.size != 1]
    runs: list[list[int]] = []
    for index in target:
        if runs and runs[-1][-1] + 1 == index:
            runs[-1].append(index)
        else:
            runs.append([index])
    by_source = sorted(runs)
    split = tuple(prod(source[index].size for index in run) for run in by_source)
    return View(split, tuple(by_source.index(run) for run in runs), shape)
