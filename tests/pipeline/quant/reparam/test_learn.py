"""Learned factors: never worse than where they start, and they find what powers cannot."""

from typing import Any

import numpy as np
import torch
from torch import fx

from pipeline.quant.channels import Channels, channels_of
from pipeline.quant.plan import make_plan
from pipeline.quant.recipe import Recipe, parse_recipe
from pipeline.quant.reparam import learn
from pipeline.quant.reparam.equalize import Equalization
from pipeline.quant.sites import Sampling, collect_sites


def _recipe() -> Recipe:
    few = {"bits": 4}
    content = {"name": "x", "weights": few, "activations": few, "equalize": {"learn": 20}}
    return parse_recipe(content, "x")


def _norm(graph: fx.GraphModule) -> Channels:
    node = next(n for n in graph.graph.nodes if n.target is torch.ops.aten.layer_norm.default)
    channels = channels_of(node)
    assert channels is not None
    return channels


def test_errors_fall_from_a_bad_start(
    vit: fx.GraphModule, images: list[np.ndarray[Any, Any]]
) -> None:
    recipe = _recipe()
    plan = make_plan(vit.graph, recipe)
    sites = collect_sites(vit, images[:4], Sampling())
    channels = _norm(vit)
    bad = tuple(4.0 if index % 2 else 0.25 for index in range(channels.count))
    start = Equalization(channels.node.name, bad)

    def error(found: Equalization) -> float:
        samples = learn._samples(channels, start, plan, recipe, sites)
        return float(learn.output_error(torch.tensor(found.factor), samples))

    short, long = (
        learn.learned_factors(channels, start, plan, recipe, sites, steps) for steps in (1, 200)
    )
    assert error(short) <= error(start) * (1 + 1e-5)
    assert error(long) < 0.5 * error(start)
    assert min(long.factor) > 0
