"""Calibration: run photos through the float graph and choose every activation's quantizer."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from pipeline.errors import UserError
from pipeline.quant import observers
from pipeline.quant.calibration import Calibration
from pipeline.quant.finite import FiniteInterpreter
from pipeline.quant.histogram import Histogram, LogHistogram
from pipeline.quant.images import as_input
from pipeline.quant.plan import Plan
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.quantizers.logarithmic import Logarithmic
from pipeline.quant.quantizers.twin import Twin
from pipeline.quant.quantizers.uniform import Uniform, UniformQuantizer
from pipeline.quant.recipe import Recipe
from pipeline.quant.roles import Role

Progress = Callable[[int, int], None]
"""Called with the number of photos done and the total."""

Statistics = Histogram | LogHistogram
"""What is counted of one tensor."""


def calibrate(
    graph: fx.GraphModule,
    images: Iterable[np.ndarray[Any, Any]],
    recipe: Recipe,
    plan: Plan,
    progress: Progress | None = None,
) -> Calibration:
    """Choose scales and zero points from photos, one photo in memory at a time.

    Args:
        graph: canonical float graph.
        images: uint8 `[H, W, 3]` photos, already resized; `recipe.calibration_images` are read.
        recipe: formats and observers.
        plan: the graph's plan under the recipe.
        progress: called after every photo.

    Raises:
        UserError: too few photos, a photo of the wrong shape, or a value that is not finite.
    """
    statistics = empty_statistics(plan)
    collector = _Collector(graph, statistics)
    needed, seen = recipe.calibration_images, 0
    with torch.no_grad():
        for seen, image in enumerate(itertools.islice(images, needed), start=1):
            collector.run(as_input(image, graph))
            if progress is not None:
                progress(seen, needed)
    check_enough(seen, recipe)
    return Calibration(chosen_quantizers(plan, statistics, recipe), seen)


def check_enough(photos: int, recipe: Recipe) -> None:
    """Refuse fewer photos than a recipe wants.

    Raises:
        UserError: they are too few.
    """
    if photos < recipe.calibration_images:
        raise UserError(
            f"Calibration needs {recipe.calibration_images} photos but there are only {photos}; "
            "add photos or set calibration_images in the recipe."
        )


class _Collector(FiniteInterpreter):
    """Runs the graph and feeds what every operator produces to its statistics."""

    def __init__(self, graph: fx.GraphModule, statistics: dict[str, Statistics]) -> None:
        super().__init__(graph)
        self._of = statistics

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._of:
            self._of[n.name].update(value)
        return value


def empty_statistics(plan: Plan) -> dict[str, Statistics]:
    """Statistics, by producing node, of every tensor of a plan that has parameters to choose."""
    statistics: dict[str, Statistics] = {}
    for name, chosen in plan.formats.items():
        if isinstance(chosen, Logarithmic):
            if chosen.q is None or chosen.fixed_scale is None:
                statistics[name] = LogHistogram(chosen.shift)
        elif isinstance(chosen, Twin) or _is_searched(chosen, plan.roles.tensors[name]):
            statistics[name] = Histogram()
    for copy in plan.copies.values():
        statistics.setdefault(copy.source, Histogram())
    return statistics


def _is_searched(chosen: Uniform, role: Role) -> bool:
    return chosen.fixed is None and role is not Role.OUTPUT


def chosen_quantizers(
    plan: Plan, statistics: Mapping[str, Statistics], recipe: Recipe
) -> dict[str, Quantizer]:
    """Quantizers of all tensors and copies of a plan, by the recipe's observers."""
    chosen: dict[str, Quantizer] = {}
    for name, target in plan.formats.items():
        role, seen = plan.roles.tensors[name], statistics.get(name)
        if role is Role.OUTPUT:
            continue
        if isinstance(target, Logarithmic):
            assert not isinstance(seen, Histogram)
            chosen[name] = observers.logarithmic_quantizer(seen, target)
        elif isinstance(target, Twin):
            assert isinstance(seen, Histogram)
            chosen[name] = observers.twin_quantizer(seen, target)
        elif target.fixed is not None:
            chosen[name] = observers.uniform_quantizer((0.0, 0.0), target)
        else:
            assert isinstance(seen, Histogram)
            chosen[name] = _uniform(seen, target, role, recipe, plan.flat.get(name))
    for copy in plan.copies.values():
        seen = statistics[copy.source]
        assert isinstance(seen, Histogram)
        chosen[copy.key] = _uniform(seen, copy.format, Role.GEMM_IN, recipe)
    return chosen


def _uniform(
    seen: Histogram,
    target: Uniform,
    role: Role,
    recipe: Recipe,
    limits: tuple[float, float] | None = None,
) -> UniformQuantizer:
    if target.dtype == "int16":
        low, high = observers.MinMax().range(seen, target)
        low, high = low * observers.HEADROOM_16, high * observers.HEADROOM_16
    else:
        settings = recipe.activations
        name = settings.roles.get(role, settings.observer)
        low, high = observers.OBSERVERS[name](settings).range(seen, target)
    if limits is not None:
        low, high = max(low, limits[0]), min(high, limits[1])
    return observers.uniform_quantizer((low, high), target)
