"""From a graph and photos to the bits of every product."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import fx

from pipeline.errors import UserError
from pipeline.progress import Reporter, Silent
from pipeline.quant import walk
from pipeline.quant.allocate.costs import averaged_bits, stored_bits, weight_count
from pipeline.quant.allocate.groups import Group, find_groups
from pipeline.quant.allocate.scores import SCORES, Score, score_groups
from pipeline.quant.allocate.select import select
from pipeline.quant.allocate.settings import Mixed
from pipeline.quant.plan import Plan, make_plan
from pipeline.quant.recipe import Recipe
from pipeline.quant.roles import RoleTable

BYTE, MEGA = 8, 10**6


def allocate_bits(
    graph: fx.GraphModule,
    recipe: Recipe,
    settings: Mixed,
    photos: Sequence[np.ndarray[Any, Any]],
    reporter: Reporter | None = None,
) -> dict[str, int]:
    """Bits of the operands of products, as `make_plan` takes them.

    Stem and head keep the bits of the recipe, and do not count in an average, where it names them
    or where the score cannot judge them.

    Args:
        graph: canonical graph.
        recipe: formats and observers.
        settings: what to reach and how.
        photos: uint8 `[H, W, 3]`; the first `settings.images` are used.
        reporter: hears of the photos that are scored, counted for every width.

    Raises:
        UserError: no choice of bits reaches the size.
    """
    plan, score = make_plan(graph.graph, recipe), SCORES[settings.score]
    fixed = _fixed(plan.roles, recipe, score)
    groups = [
        group
        for group in find_groups(graph.graph, plan.roles, settings.groups)
        if fixed.isdisjoint(product.name for product in group.products)
    ]
    widths = settings.widths(recipe.weights.bits)
    costs, budget = _costs(graph.graph, plan, recipe, settings, groups, widths)
    _check_size(costs, budget, settings)
    few = photos[: settings.images]
    with (reporter or Silent()).step("score bits", len(widths) * len(few)) as step:
        scores = score_groups(
            graph, recipe, groups, widths, few, score, lambda done, _: step.advance(done)
        )
    chosen = select(costs, scores, budget)
    assert chosen is not None
    return {
        product.name: widths[index]
        for group, index in zip(groups, chosen, strict=True)
        for product in group.products
    }


def _fixed(roles: RoleTable, recipe: Recipe, score: Score) -> frozenset[str]:
    """Products that keep the bits of the recipe."""
    if not score.judges_ends:
        return roles.stem | roles.head
    weights, activations = recipe.weights, recipe.activations
    stem = roles.stem if weights.stem_bits is not None else frozenset()
    named = weights.head_bits is not None or activations.head_bits is not None
    return stem | (roles.head if named else frozenset())


def _costs(
    graph: fx.Graph,
    plan: Plan,
    recipe: Recipe,
    settings: Mixed,
    groups: Sequence[Group],
    widths: Sequence[int],
) -> tuple[list[list[int]], int]:
    """Costs of every group at every width, and the budget for all groups, in bits."""
    if settings.size_mb is None:
        total = sum(weight_count(group.products) for group in groups)
        costs = [[averaged_bits(group.products, width) for width in widths] for group in groups]
        return costs, int(settings.average_of(recipe.weights.bits) * total)
    per_channel = recipe.weights.per_channel
    free = {product.name for group in groups for product in group.products}
    fixed = sum(
        stored_bits([node], plan.weights[node.name], per_channel)
        for node in graph.nodes
        if node.target in walk.WEIGHTED and node.name not in free
    )
    costs = [
        [stored_bits(group.products, width, per_channel) for width in widths] for group in groups
    ]
    return costs, int(settings.size_mb * MEGA * BYTE) - fixed


def _check_size(costs: Sequence[Sequence[int]], budget: int, settings: Mixed) -> None:
    missing = sum(map(min, costs)) - budget
    if settings.size_mb is not None and missing > 0:
        least = settings.size_mb + missing / (BYTE * MEGA)
        raise UserError(
            f"The weights take at least {least:.3f} MB, which is more than mixed.size_mb = "
            f"{settings.size_mb}; give more, or allow fewer bits in mixed.choices."
        )
