"""Rounding weights so that errors of one input compensate those of others.

Column by column, what rounding took from a weight is made up for by the columns that are still
open, as far as the inputs are correlated: optimal brain quantization in the order of the columns
(GPTQ, ICLR 2023, section 3). Only the second moments of the inputs are needed.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.initial import smallest_scale, weight_and_bias, weight_format
from pipeline.quant.plan import Plan
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.recipe import Recipe
from pipeline.quant.search.engine import Pair
from pipeline.quant.sites import Site, Weighted
from pipeline.quant.weights import (
    QuantizedWeight,
    WeightFormat,
    encode,
    scales_of,
    usable,
)

DAMPING = 0.01
"""Added to the second moments, relative to their mean diagonal: unseen directions stay put."""


def round_weights(
    graph: fx.GraphModule,
    plan: Plan,
    recipe: Recipe,
    activations: Mapping[str, Quantizer],
    rows: Mapping[str, Pair],
    sites: Mapping[str, Site],
) -> dict[str, QuantizedWeight]:
    """Codes of all weights.

    Args:
        graph: canonical graph.
        plan: its plan.
        recipe: formats, observer and way of rounding.
        activations: key -> quantizer.
        rows: product -> scale and zero point `[O]`; the observer's where there are none.
        sites: samples of products.
    """
    return {
        node.name: rounded_weight(
            graph, node, plan, recipe, activations, rows.get(node.name), sites.get(node.name)
        )
        for node in graph.graph.nodes
        if node.target in walk.WEIGHTED
    }


def rounded_weight(
    graph: fx.GraphModule,
    product: fx.Node,
    plan: Plan,
    recipe: Recipe,
    activations: Mapping[str, Quantizer],
    rows: Pair | None = None,
    site: Site | None = None,
) -> QuantizedWeight:
    """Codes of one product's weights; arguments as those of `round_weights`, for one product."""
    weight, bias = weight_and_bias(graph, product)
    target = weight_format(product.name, plan, recipe)
    floor = smallest_scale(product, bias, plan, activations)
    scale, zero = rows or scales_of(weight, target, recipe.weights.observer)
    if recipe.weights.rounding == "nearest" or not isinstance(site, Weighted):
        return encode(weight, scale, zero, target, floor)
    scale = usable(scale, floor)
    groups = zip(
        site.w, scale.chunk(len(site.w)), zero.chunk(len(site.w)), site.moments, strict=True
    )
    codes = torch.cat([compensated_codes(w, s, z, target, m) for w, s, z, m in groups])
    return QuantizedWeight(codes.reshape(weight.shape), scale, zero)


def compensated_codes(
    rows: Tensor, scale: Tensor, zero: Tensor, target: WeightFormat, moments: Tensor
) -> Tensor:
    """Codes of weights with the error of their products made small.

    Args:
        rows: float `[O, K]`.
        scale: `[O]`.
        zero: zero points `[O]`.
        target: format of the codes.
        moments: `X^T X` of the inputs, `[K, K]`, in any scale.

    Returns:
        int8 `[O, K]`, zero points subtracted.
    """
    depth = rows.shape[1]
    moments = moments.double()
    diagonal = moments.diagonal()
    damped = moments + torch.eye(depth) * (DAMPING * diagonal.mean() + 1e-12)
    order = diagonal.argsort(descending=True)  # inputs that matter most are rounded first
    damped = damped[order][:, order]
    # The upper Cholesky factor of the inverse holds, row by row, how later columns make up.
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    open_rows = rows[:, order].clone()
    codes = torch.empty_like(open_rows)
    low, high = target.range
    for column in range(depth):
        value = open_rows[:, column]
        code = (torch.floor(value / scale + 0.5) + zero).clamp(low, high) - zero
        codes[:, column] = code
        error = (value - code * scale) / factor[column, column]
        open_rows[:, column + 1 :] -= error.unsqueeze(1) * factor[column, column + 1 :]
    result = torch.empty_like(codes)
    result[:, order] = codes
    return result.to(torch.int8)
