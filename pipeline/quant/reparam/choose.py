"""Which channels to equalize, and how far: judged by the error of the products that read them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pipeline.operators import DYNAMIC_RELU
from pipeline.quant import walk, weights
from pipeline.quant.channels import Channels, channels_of
from pipeline.quant.images import as_input
from pipeline.quant.initial import weight_format
from pipeline.quant.plan import Plan
from pipeline.quant.quantizers import uniform
from pipeline.quant.quantizers.uniform import Uniform
from pipeline.quant.recipe import Equalize, Factors, Recipe
from pipeline.quant.reparam.equalize import Equalization
from pipeline.quant.reparam.learn import learned_factors
from pipeline.quant.reparam.streams import stream_of
from pipeline.quant.roles import Role
from pipeline.quant.search.candidates import Codes, scale_grid
from pipeline.quant.search.engine import Pair
from pipeline.quant.search.operands import spread as broadcast
from pipeline.quant.sites import Site, Weighted, weighted_output

_SMALLEST_RANGE = 2.0**-10
"""Least width of a channel, relative to the mean: bounds the factors."""


@dataclass(frozen=True)
class Spread:
    """Where the values of every channel lie, and how far apart, `[C]` each."""

    centre: Tensor
    width: Tensor


def equalizable(graph: fx.Graph, plan: Plan, settings: Equalize) -> list[Channels]:
    """Tensors whose channels may be equalized under these settings.

    Where others than products read the tensor, it must be stored in 16 bits: products then read a
    copy behind the factors.
    """
    found = []
    for node in graph.nodes:
        is_norm = node.target in walk.NORMS
        if node.op != "call_function" or (settings.tensors == "norms" and not is_norm):
            continue
        wide = _is_wide(node, plan)
        if wide and plan.roles.tensors[node.name] is not Role.RESIDUAL:
            continue  # tokens, gates, logits: 16 bits resolve every channel
        is_curve = node.target in walk.CURVES and node.target is not DYNAMIC_RELU
        if not (is_norm or is_curve or wide):
            continue
        if not isinstance(plan.formats.get(node.name), Uniform):
            continue
        readers = walk.consumers(node)
        if any(reader.name in plan.roles.heads_mixers for reader in readers):
            continue  # they read 16 bits, of which every head has enough
        only_products = all(r.target in walk.GEMMS for r in readers)
        if (only_products or wide) and (channels := channels_of(node)) is not None:
            found.append(channels)
    return found


def balanceable(graph: fx.Graph, settings: Equalize) -> list[Channels]:
    """The last member of every linear stream, which has the most to carry."""
    found: list[Channels] = []
    known: set[fx.Node] = set()
    for node in reversed(graph.nodes) if settings.tensors == "all" else ():
        if node not in known and (stream := stream_of(node)) is not None:
            known |= stream.members
            found.append(stream.channels(node))
    return found[::-1]


def _is_wide(node: fx.Node, plan: Plan) -> bool:
    target = plan.formats.get(node.name)
    return isinstance(target, Uniform) and target.dtype == "int16"


class _Statistics:
    """Extremes and moments of every channel of one tensor, float64."""

    def __init__(self) -> None:
        self.low = self.high = self.sum = self.squares = torch.zeros(())
        self.count = 0

    def update(self, rows: Tensor) -> None:
        """Add values `[C, n]`."""
        rows = rows.double()
        first = self.count == 0
        self.low = rows.amin(1) if first else torch.minimum(self.low, rows.amin(1))
        self.high = rows.amax(1) if first else torch.maximum(self.high, rows.amax(1))
        self.sum = self.sum + rows.sum(1)
        self.squares = self.squares + rows.square().sum(1)
        self.count += rows.shape[1]

    def spread(self, statistic: str, about_zero: bool) -> Spread:
        """By range or by deviation, around zero or around each channel's own centre."""
        if statistic == "range":
            low, high = (
                (self.low.clamp(max=0), self.high.clamp(min=0))
                if about_zero
                else (self.low, self.high)
            )
            return Spread((low + high) / 2, high - low)
        mean, square = self.sum / self.count, self.squares / self.count
        width = square if about_zero else square - mean.square()
        return Spread(mean, width.clamp(min=0).sqrt())


def channel_statistics(
    graph: fx.GraphModule, images: Iterable[np.ndarray[Any, Any]], tensors: Sequence[Channels]
) -> dict[str, _Statistics]:
    """Statistics of the channels of some tensors of a float graph over all photos."""
    axes = {channels.node: channels.axis for channels in tensors}
    found = {channels.node.name: _Statistics() for channels in tensors}

    class Observe(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in axes:
                found[n.name].update(value.movedim(axes[n], 0).flatten(1))
            return value

    observe = Observe(graph)
    with torch.no_grad():
        for image in images:
            observe.run(as_input(image, graph))
    return found


def choose_streams(
    graph: fx.GraphModule,
    plan: Plan,
    recipe: Recipe,
    settings: Equalize,
    images: Sequence[np.ndarray[Any, Any]],
    sites: Mapping[str, Site],
) -> list[Equalization]:
    """Like `choose_equalizations`, for linear streams, which come first: they cost nothing."""
    streams = balanceable(graph.graph, settings)
    statistics = channel_statistics(graph, images, streams)
    tried = settings.others or settings
    chosen = (
        _chosen(channels, statistics[channels.node.name], tried, False, plan, recipe, sites)
        for channels in streams
    )
    return [replace(one, stream=True) for one in chosen if _changes(one)]


def choose_equalizations(
    graph: fx.GraphModule,
    plan: Plan,
    recipe: Recipe,
    settings: Equalize,
    images: Sequence[np.ndarray[Any, Any]],
    sites: Mapping[str, Site],
) -> list[Equalization]:
    """Factors for every tensor that may have them, where they lessen the error of its products.

    Args:
        graph: canonical graph.
        plan: its plan.
        recipe: bits and formats.
        settings: which tensors, and the powers of the range that are tried as factors.
        images: uint8 `[H, W, 3]` calibration photos.
        sites: samples of the products.
    """
    tensors = equalizable(graph.graph, plan, settings)
    statistics = channel_statistics(graph, images, tensors)
    found = []
    for channels in tensors:
        is_norm = channels.node.target in walk.NORMS
        tried = settings if is_norm else settings.others or settings
        shift = settings.shift and is_norm and channels.can_shift
        seen = statistics[channels.node.name]
        best = _chosen(channels, seen, tried, shift, plan, recipe, sites)
        if settings.learn:
            trained = learned_factors(channels, best, plan, recipe, sites, settings.learn)
            best = min(
                (best, trained), key=lambda trial: _error(channels, trial, plan, recipe, sites)
            )
        if _changes(best):
            found.append(best)
    return found


def _chosen(
    channels: Channels,
    seen: "_Statistics",
    tried: Factors,
    shift: bool,
    plan: Plan,
    recipe: Recipe,
    sites: Mapping[str, Site],
) -> Equalization:
    """The trial with the least error of the readers."""
    trials = [
        _equalization(channels, seen.spread(statistic, not shift), exponent, shift)
        for statistic in tried.statistics
        for exponent in tried.exponents
    ]
    if len(trials) == 1:
        return trials[0]
    return min(trials, key=lambda trial: _error(channels, trial, plan, recipe, sites))


def _changes(found: Equalization) -> bool:
    return bool(found.shift) or any(factor != 1.0 for factor in found.factor)


def _equalization(channels: Channels, spread: Spread, exponent: float, shift: bool) -> Equalization:
    mean = spread.width.mean().clamp(min=torch.finfo(torch.float32).tiny)
    factor = (spread.width / mean).clamp(min=_SMALLEST_RANGE) ** exponent
    moved: tuple[float, ...] = ()
    if shift and exponent > 0:
        common = (spread.centre / factor).mean() * factor
        moved = tuple((common - spread.centre).tolist())
    return Equalization(channels.node.name, tuple(factor.tolist()), moved)


def _error(
    channels: Channels,
    trial: Equalization,
    plan: Plan,
    recipe: Recipe,
    sites: Mapping[str, Site],
) -> float:
    """Squared error of all readers' sampled outputs with quantized inputs and weights."""
    # channel -1, another tensor's, stays as it is
    factor, total = torch.tensor((*trial.factor, 1.0)), 0.0
    shift = torch.tensor((*trial.shift, 0.0)) if trial.shift else torch.zeros_like(factor)
    for reader in channels.readers:
        site = sites[reader.product.name]
        assert isinstance(site, Weighted)
        at, offset = factor[reader.channel], shift[reader.channel]
        x = (site.x + offset) / at
        w = site.w * at.unsqueeze(1)
        wanted = weighted_output(x, w)
        target = weight_format(site.name, plan, recipe)
        rows = w.flatten(0, 1)
        bounds = weights.WEIGHT_OBSERVERS["mse"].bounds(rows, target)
        restored = weights.fake(rows, *weights.parameters(*bounds, target), target).reshape(w.shape)
        form = plan.format_of_key(plan.key_of(reader.product, 0))
        assert isinstance(form, Uniform)
        total += _least_input_error(x, restored, wanted, form)
    return total


def _least_input_error(x: Tensor, w: Tensor, wanted: Tensor, target: Uniform) -> float:
    codes = Codes(target.qmin, target.qmax, target.symmetric)
    grid = scale_grid(x.flatten(), codes, 0.4, 1.0, 7)
    errors = []
    for index in range(len(grid.pairs.first)):
        pair = Pair(*(p[index : index + 1] for p in grid.pairs))
        scale, zero = (broadcast(p, None, x.dim()) for p in pair)
        outputs = weighted_output(uniform.fake(x, scale[0], zero[0], target), w)
        errors.append(float((outputs - wanted).square().sum()))
    return min(errors)
