"""Operands of a search: sampled values with the format whose parameters are to be found.

Each family of formats has a class here with `grid`, `fake` and `quantizer`; `operand_of` chooses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from pipeline.quant.heads import Heads
from pipeline.quant.observers import as_float32
from pipeline.quant.quantizers import Format, Quantizer, logarithmic, twin, uniform
from pipeline.quant.quantizers.logarithmic import Logarithmic, LogarithmicQuantizer
from pipeline.quant.quantizers.twin import Twin, TwinQuantizer
from pipeline.quant.quantizers.uniform import Uniform, UniformQuantizer
from pipeline.quant.search import candidates
from pipeline.quant.search.candidates import Codes, Grid
from pipeline.quant.search.engine import Pair

_SCREENED = 4096
"""Values that candidates are screened on, where there are too many to compare outputs."""


@dataclass(frozen=True)
class Space:
    """Which candidates are tried.

    Attributes:
        low: least multiple of the scale that covers the range.
        high: greatest multiple.
        count: candidates of a grid.
        zero_points: zero points beside every scale; 0: the one of the range.
    """

    low: float = 0.3
    high: float = 1.2
    count: int = 100
    zero_points: int = 0


class Operand(Protocol):
    """One side of a product."""

    @property
    def group_axis(self) -> int | None:
        """Axis of the sampled values along which parameters differ."""
        ...

    def grid(self, space: Space) -> Grid:
        """Candidates."""
        ...

    def fake(self, pair: Pair) -> Tensor:
        """Values `[C, ...]` as the candidates restore them."""
        ...

    def quantizer(self, pair: Pair) -> Quantizer:
        """The quantizer of a choice."""
        ...

    def incumbent(self, quantizer: Quantizer) -> Pair:
        """The only candidate that a quantizer stands for."""
        ...


@dataclass(frozen=True)
class UniformOperand:
    """Uniform codes.

    Attributes:
        values: sampled values, any shape.
        format: the format.
        group_axis: axis of the heads, if each has its own scale.
        heads: heads of the stored tensor's channels, likewise.
    """

    values: Tensor
    format: Uniform
    group_axis: int | None = None
    heads: Heads | None = None

    @property
    def _codes(self) -> Codes:
        return Codes(self.format.qmin, self.format.qmax, self.format.symmetric)

    def _grouped(self) -> Tensor:
        if self.group_axis is None:
            return self.values.flatten()
        return self.values.movedim(self.group_axis, 0).flatten(1)

    def grid(self, space: Space) -> Grid:
        """See `Operand`."""
        values = self._grouped()
        if space.zero_points and not self.format.symmetric:
            return candidates.scale_zero_grid(values, self._codes, space.zero_points, space.count)
        return candidates.scale_grid(values, self._codes, space.low, space.high, space.count)

    def fake(self, pair: Pair) -> Tensor:
        """See `Operand`."""
        first, second = (spread(p, self.group_axis, self.values.dim()) for p in pair)
        return uniform.fake(self.values, first, second, self.format)

    def quantizer(self, pair: Pair) -> UniformQuantizer:
        """See `Operand`."""
        scale = [as_float32(v) for v in pair.first.flatten().tolist()]
        zero = [int(v) for v in pair.second.flatten().tolist()]
        if self.heads is None:
            return UniformQuantizer(self.format, (scale[0],), (zero[0],))
        order = self.heads.head
        return UniformQuantizer(
            self.format,
            tuple(scale[head] for head in order),
            tuple(zero[head] for head in order),
            self.heads.axis,
        )

    def incumbent(self, quantizer: Quantizer) -> Pair:
        """See `Operand`."""
        assert isinstance(quantizer, UniformQuantizer)
        scale, zero = (torch.tensor(v).float() for v in (quantizer.scale, quantizer.zero_point))
        if self.heads is None:
            return Pair(scale[:1], zero[:1])
        if quantizer.is_per_tensor:
            return Pair(scale.repeat(1, self.heads.count), zero.repeat(1, self.heads.count))
        first = [self.heads.head.index(head) for head in range(self.heads.count)]
        return Pair(scale[first].unsqueeze(0), zero[first].unsqueeze(0))


@dataclass(frozen=True)
class LogarithmicOperand:
    """Logarithmic codes; see `UniformOperand`."""

    values: Tensor
    format: Logarithmic
    group_axis: int | None = None

    def grid(self, space: Space) -> Grid:
        """See `Operand`."""
        target = self.format
        bases = list(range(1, 138)) if target.q is None else [target.q]
        if target.fixed_scale is not None:
            return candidates.logarithmic_grid(torch.tensor([target.fixed_scale]), bases, 1)
        grid = candidates.logarithmic_grid(self.values.flatten() + target.shift, bases, 16)
        return _screened(grid, self.values, partial(logarithmic.fake, target=target), space.count)

    def fake(self, pair: Pair) -> Tensor:
        """See `Operand`."""
        first, second = (spread(p, None, self.values.dim()) for p in pair)
        return logarithmic.fake(self.values, first, second, self.format)

    def quantizer(self, pair: Pair) -> LogarithmicQuantizer:
        """See `Operand`."""
        return LogarithmicQuantizer(self.format, as_float32(float(pair.first)), int(pair.second))

    def incumbent(self, quantizer: Quantizer) -> Pair:
        """See `Operand`."""
        assert isinstance(quantizer, LogarithmicQuantizer)
        return Pair(torch.tensor([quantizer.scale]), torch.tensor([float(quantizer.q)]))


@dataclass(frozen=True)
class TwinOperand:
    """Twin uniform codes; see `UniformOperand`."""

    values: Tensor
    format: Twin
    group_axis: int | None = None

    def grid(self, space: Space) -> Grid:
        """See `Operand`."""
        scales = 16 if self.format.signed else 1
        greatest, half = float(self.values.max()), self.format.half
        grid = candidates.twin_grid(greatest, half, self.format.largest_ratio, scales)
        return _screened(grid, self.values, partial(twin.fake, target=self.format), space.count)

    def fake(self, pair: Pair) -> Tensor:
        """See `Operand`."""
        first, second = (spread(p, None, self.values.dim()) for p in pair)
        return twin.fake(self.values, first, second, self.format)

    def quantizer(self, pair: Pair) -> TwinQuantizer:
        """See `Operand`."""
        return TwinQuantizer(self.format, as_float32(float(pair.first)), int(pair.second))

    def incumbent(self, quantizer: Quantizer) -> Pair:
        """See `Operand`."""
        assert isinstance(quantizer, TwinQuantizer)
        return Pair(torch.tensor([quantizer.scale]), torch.tensor([float(quantizer.ratio)]))


def operand_of(
    values: Tensor, target: Format, group_axis: int | None = None, heads: Heads | None = None
) -> Operand:
    """The operand of a format."""
    if isinstance(target, Uniform):
        return UniformOperand(values, target, group_axis, heads)
    if isinstance(target, Logarithmic):
        return LogarithmicOperand(values, target)
    return TwinOperand(values, target)


def _screened(
    grid: Grid, values: Tensor, fake: Callable[[Tensor, Tensor, Tensor], Tensor], count: int
) -> Grid:
    """The `count` candidates that restore a sample of the values themselves best."""
    if len(grid.pairs.first) <= count:
        return grid
    flat = values.flatten()
    sample = flat[:: max(flat.numel() // _SCREENED, 1)]
    errors = torch.cat(
        [
            (fake(sample, first, second) - sample).square().mean(dim=1)
            for first, second in zip(
                *(torch.split(p.unsqueeze(1), 64) for p in grid.pairs), strict=True
            )
        ]
    )
    best = errors.topk(count, largest=False).indices.sort().values
    return Grid(Pair(grid.pairs.first[best], grid.pairs.second[best]), grid.spacing)


def spread(parameter: Tensor, axis: int | None, rank: int) -> Tensor:
    """`[C]` or `[C, groups]`, shaped to broadcast against `[C, *values]` of `rank` axes."""
    shape = [1] * (rank + 1)
    shape[0] = len(parameter)
    if axis is not None:
        shape[axis % rank + 1] = parameter.shape[1]
    return parameter.reshape(shape)
