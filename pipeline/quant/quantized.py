"""A quantized model as one value, and the steps of a recipe that make it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from torch import fx

from pipeline.quant.allocate.run import allocate_bits
from pipeline.quant.bias_correction import corrected_biases
from pipeline.quant.calibrate import Progress, calibrate
from pipeline.quant.fingerprint import fingerprint
from pipeline.quant.initial import initial_weights
from pipeline.quant.insert import quantize_graph
from pipeline.quant.plan import NO_BITS, make_plan
from pipeline.quant.quantization import Quantization
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.recipe import Recipe
from pipeline.quant.reparam.choose import choose_equalizations
from pipeline.quant.reparam.equalize import Equalization, equalize
from pipeline.quant.rounding import round_weights
from pipeline.quant.search.engine import Pair
from pipeline.quant.search.run import search_products
from pipeline.quant.sites import Sampling, Site, collect_sites

Photos = Sequence[np.ndarray[Any, Any]]


@dataclass(frozen=True)
class QuantizedModel:
    """A QDQ graph and its provenance.

    Attributes:
        graph: the QDQ graph; running it in torch is the simulation.
        recipe: bits and formats.
        quantization: quantizers of activations and weights.
        model: what identifies the float model, as plain JSON data.
        source: `fingerprint` of the canonical graph that was quantized.
    """

    graph: fx.GraphModule
    recipe: Recipe
    quantization: Quantization
    model: Mapping[str, Any]
    source: str


def quantize_model(
    graph: fx.GraphModule,
    images: Iterable[np.ndarray[Any, Any]],
    recipe: Recipe,
    model: Mapping[str, Any],
    progress: Progress | None = None,
) -> QuantizedModel:
    """Quantize a canonical float graph by a recipe.

    Args:
        graph: canonical float graph.
        images: uint8 `[H, W, 3]` calibration photos, already resized.
        recipe: bits and formats.
        model: what identifies the float model, as plain JSON data.
        progress: called after every photo.

    Raises:
        UserError: see `calibrate`.
    """
    photos = list(islice(images, recipe.calibration_images))
    prepared, found = find_quantization(graph, photos, recipe, progress)
    plan = make_plan(prepared.graph, recipe, found.bits)
    quantized = quantize_graph(prepared, plan, found)
    return QuantizedModel(quantized, recipe, found, model, fingerprint(graph))


def find_quantization(
    graph: fx.GraphModule, photos: Photos, recipe: Recipe, progress: Progress | None = None
) -> tuple[fx.GraphModule, Quantization]:
    """The steps of a recipe in order.

    Returns:
        The float graph that its reparameterizations give, and the quantization of that.
    """
    equalizations: tuple[Equalization, ...] = ()
    if recipe.equalize is not None:
        plan = make_plan(graph.graph, recipe)
        sites = _sites(graph, photos, recipe)
        equalizations = tuple(
            choose_equalizations(graph, plan, recipe, recipe.equalize, photos, sites)
        )
        graph = equalize(graph, equalizations)
    bits = NO_BITS
    if recipe.mixed is not None:
        bits = allocate_bits(graph, recipe, recipe.mixed, photos)
    plan = make_plan(graph.graph, recipe, bits)
    calibration = calibrate(graph, photos, recipe, plan, progress)
    activations: dict[str, Quantizer] = dict(calibration.tensors)
    if not _needs_sites(recipe):
        weights = initial_weights(graph, plan, recipe, activations)
        return graph, Quantization(
            activations, weights, {}, bits, equalizations, calibration.images
        )
    sites = _sites(graph, photos, recipe)
    rows: Mapping[str, Pair] = {}
    if recipe.search is not None:
        choice = search_products(
            graph.graph, plan, recipe, recipe.search, sites, activations, importance={}
        )
        activations |= choice.activations
        rows = choice.rows
    weights = round_weights(graph, plan, recipe, activations, rows, sites)
    biases = {}
    if recipe.bias_correction:
        biases = corrected_biases(graph, plan, activations, weights, sites)
    return graph, Quantization(
        activations, weights, biases, bits, equalizations, calibration.images
    )


def _needs_sites(recipe: Recipe) -> bool:
    rounding = recipe.weights.rounding
    return recipe.search is not None or recipe.bias_correction or rounding == "compensated"


def _sites(graph: fx.GraphModule, photos: Photos, recipe: Recipe) -> dict[str, Site]:
    rows, images = (recipe.search.rows, recipe.search.images) if recipe.search else (16, 8)
    return collect_sites(graph, photos, Sampling(rows or 1 << 30, images))
