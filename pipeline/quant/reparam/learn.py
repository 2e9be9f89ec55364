"""Factors per channel learned from the error of the products: HyQ's QADS (IJCAI 2024).

The published method learns a divisor per input channel of 1x1 convolutions by Adam, with ranges of
what is divided; here it starts from the best power of the channels' widths, in the logarithm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.quant.channels import Channels
from pipeline.quant.plan import Plan
from pipeline.quant.quantizers.uniform import Uniform
from pipeline.quant.recipe import Recipe
from pipeline.quant.reparam.equalize import Equalization
from pipeline.quant.sites import Site, Weighted, weighted_output
from pipeline.quant.weights import WeightFormat

RATE = 0.01
"""Learning rate of the logarithms at the start; it falls to zero like a cosine."""

_ROWS = 128
"""Sampled rows of every product that are looked at."""

_TINY = 2.0**-20


@dataclass(frozen=True)
class _Sample:
    """What one reader of the tensor is judged on.

    Attributes:
        channel: see `Reader`.
        x: shifted inputs `[S, G, K]`.
        w: weights `[G, O, K]`.
        y: their product.
        input: format of the inputs.
        weight: format of the weights.
    """

    channel: Tensor
    x: Tensor
    w: Tensor
    y: Tensor
    input: Uniform
    weight: WeightFormat


def learned_factors(
    channels: Channels,
    start: Equalization,
    plan: Plan,
    recipe: Recipe,
    sites: Mapping[str, Site],
    steps: int,
) -> Equalization:
    """Factors with the least squared error of the readers' outputs among those that Adam visits.

    Args:
        channels: the tensor and its readers.
        start: factors to begin with; shifts stay.
        plan: formats of inputs and weights.
        recipe: likewise.
        sites: samples of the products.
        steps: of Adam.
    """
    samples = _samples(channels, start, plan, recipe, sites)
    logarithms = torch.tensor(start.factor).log().requires_grad_()
    adam = torch.optim.Adam([logarithms], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    least, best = torch.inf, logarithms.detach().clone()
    for _ in range(steps + 1):
        loss = output_error(logarithms.exp(), samples)
        if (error := float(loss.detach())) < least:
            least, best = error, logarithms.detach().clone()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        schedule.step()
    return replace(start, factor=tuple(best.double().exp().tolist()))


def _samples(
    channels: Channels,
    start: Equalization,
    plan: Plan,
    recipe: Recipe,
    sites: Mapping[str, Site],
) -> list[_Sample]:
    shift = torch.tensor(start.shift) if start.shift else torch.zeros(channels.count)
    found = []
    for reader in channels.readers:
        site = sites[reader.product.name]
        form = plan.format_of_key(plan.key_of(reader.product, 0))
        assert isinstance(site, Weighted) and isinstance(form, Uniform)
        x = site.x[:: max(len(site.x) // _ROWS, 1)] + shift[reader.channel]
        target = WeightFormat(plan.weights[site.name], recipe.weights.symmetric)
        y = weighted_output(x, site.w)
        found.append(_Sample(reader.channel, x, site.w, y, form, target))
    return found


def output_error(factor: Tensor, samples: Sequence[_Sample]) -> Tensor:
    """Squared error of all outputs with quantized inputs and weights; the gradient sees factors."""
    total = torch.zeros(())
    for sample in samples:
        at, form, target = factor[sample.channel], sample.input, sample.weight
        x = _fake(sample.x / at, (form.qmin, form.qmax), form.symmetric, None)
        w = _fake(sample.w * at.unsqueeze(1), target.range, not target.has_zero_point, -1)
        total = total + (weighted_output(x, w) - sample.y).square().sum()
    return total


def _fake(values: Tensor, codes: tuple[int, int], symmetric: bool, axis: int | None) -> Tensor:
    """Values in codes that cover their range, which the gradient sees; rounding it does not."""
    dims = tuple(range(values.dim())) if axis is None else (axis,)
    low = values.amin(dims, keepdim=True).clamp(max=0)
    high = values.amax(dims, keepdim=True).clamp(min=0)
    if symmetric:
        scale = (torch.maximum(-low, high) / codes[1]).clamp(min=_TINY)
        return _rounded(values / scale) * scale
    scale = ((high - low) / (codes[1] - codes[0])).clamp(min=_TINY)
    zero = torch.floor(codes[0] - low / scale + 0.5).detach()
    return (_rounded(values / scale) + zero).clamp(*codes).sub(zero) * scale


def _rounded(steps: Tensor) -> Tensor:
    return steps + (torch.floor(steps + 0.5) - steps).detach()
