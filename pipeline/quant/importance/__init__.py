"""How much an error of a product or of a unit matters to what the network says."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import fx

from pipeline.quant.calibrate import calibrate
from pipeline.quant.importance.gradients import Importance, divergence, fisher
from pipeline.quant.plan import Plan
from pipeline.quant.recipe import Recipe
from pipeline.quant.sites import Sampling


def of_products(
    graph: fx.GraphModule,
    plan: Plan,
    recipe: Recipe,
    photos: Sequence[np.ndarray[Any, Any]],
    sampling: Sampling,
) -> Importance:
    """Weights of the errors of sampled outputs, as the recipe's search wants them.

    Args:
        graph: canonical graph.
        plan: its plan.
        recipe: its search names the kind of weights.
        photos: uint8 `[H, W, 3]`, those that will be sampled.
        sampling: how much of every product.

    Returns:
        Nothing for errors that all weigh the same.
    """
    kind = recipe.search.importance if recipe.search is not None else "none"
    if kind == "none":
        return Importance({}, {})
    if kind == "divergence":
        by_extremes = recipe.activations.model_copy(update={"observer": "minmax", "roles": {}})
        wide = recipe.model_copy(update={"activations": by_extremes})
        activations = calibrate(graph, photos, wide, plan).tensors
        return divergence(graph, plan, recipe, activations, photos, sampling)
    found = fisher(graph, plan, photos, sampling)
    return found if kind == "fisher" else replace(found, weights={})
