"""Searching the scales and zero points of weights, every output channel on its own.

For squared errors the output is never computed: with `G = X'^T X'` of the quantized inputs, the
error of a candidate row is a quadratic form of its distance from the float row.
"""

import torch
from torch import Tensor

from pipeline.quant import weights
from pipeline.quant.search import candidates
from pipeline.quant.search.candidates import Codes, Grid
from pipeline.quant.search.engine import Losses, Pair
from pipeline.quant.search.objectives import Objective
from pipeline.quant.search.operands import Space
from pipeline.quant.sites import Weighted, weighted_output
from pipeline.quant.weights import WeightFormat


def weight_grid(w: Tensor, target: WeightFormat, space: Space) -> Grid:
    """Candidates for rows `[G, O, K]`: by channel `[C, G, O]`, or `[C]` for the whole tensor."""
    codes = Codes(*target.range, symmetric=not target.has_zero_point)
    values = w if target.per_channel else w.flatten()
    if space.zero_points and not codes.symmetric:
        zero_points = min(space.zero_points, max((codes.steps + 1) // 2, 1))
        return candidates.scale_zero_grid(values, codes, zero_points, space.count)
    return candidates.scale_grid(values, codes, space.low, space.high, space.count)


def fake_rows(w: Tensor, pair: Pair, target: WeightFormat) -> Tensor:
    """Rows `[C, G, O, K]` as the candidates restore them."""
    shape = (-1, *w.shape[:2]) if target.per_channel else (-1, 1, 1)
    first, second = (p.reshape(shape) for p in pair)
    return weights.fake(w, first, second, target)


def quadratic_losses(site: Weighted, x: Tensor, target: WeightFormat) -> Losses:
    """Squared errors of the outputs for quantized inputs `x [S, G, K]`."""
    inputs, exact = x.movedim(1, 0), site.exact.movedim(1, 0)  # [G, S, K]
    gram = inputs.mT @ inputs / len(x)
    cross = inputs.mT @ exact / len(x)
    slope = site.w @ (gram - cross.mT)  # [G, O, K]; zero where x is exact
    constant = ((inputs - exact) @ site.w.mT).square().mean(dim=1)  # [G, O]

    def losses(pair: Pair) -> Tensor:
        moved = fake_rows(site.w, pair, target) - site.w
        # [C, G, O, K] x [G, K, K]: groups in front, so that each is one product
        candidates, groups, outputs, depth = moved.shape
        bent = moved.movedim(1, 0).reshape(groups, -1, depth) @ gram
        bent = bent.reshape(groups, candidates, outputs, depth).movedim(0, 1)
        error = (moved * (bent + 2 * slope)).sum(-1) + constant
        return error if target.per_channel else error.mean(dim=(1, 2))

    return losses


def output_losses(
    site: Weighted, x: Tensor, target: WeightFormat, objective: Objective, importance: Tensor | None
) -> Losses:
    """Any objective, on the outputs for quantized inputs `x [S, G, K]`."""
    kept = (3, 4) if target.per_channel else ()
    wanted = by_photo(site.y, site)
    weight = None if importance is None else by_photo(importance, site)

    def losses(pair: Pair) -> Tensor:
        outputs = weighted_output(x, fake_rows(site.w, pair, target))
        return objective(by_photo(outputs, site), wanted, kept, weight)

    return losses


def by_photo(outputs: Tensor, site: Weighted) -> Tensor:
    """`[..., S, G, O]` as `[..., I, R, G, O]`."""
    *front, _, groups, columns = outputs.shape
    return outputs.reshape(*front, site.images, -1, groups, columns)


def as_rows(pair: Pair, site: Weighted) -> Pair:
    """A choice as scale and zero point for every output channel, `[G * O]`."""
    groups, outputs, _ = site.w.shape
    return Pair(*(torch.broadcast_to(p, (groups, outputs)).reshape(-1) for p in pair))
