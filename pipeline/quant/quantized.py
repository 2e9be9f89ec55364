"""A quantized model as one value, and the steps of a recipe that make it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pipeline.progress import Reporter, Silent
from pipeline.quant import importance, pieces
from pipeline.quant.allocate.run import allocate_bits
from pipeline.quant.bias_correction import biases_in_order, corrected_biases
from pipeline.quant.bridges import search_bridges
from pipeline.quant.calibrate import Progress, calibrate, check_enough
from pipeline.quant.fingerprint import fingerprint
from pipeline.quant.initial import initial_weights, weight_and_bias
from pipeline.quant.insert import quantize_graph
from pipeline.quant.mlp.rewrite import find_mlps, rectify
from pipeline.quant.mlp.train import reconstruct_mlps
from pipeline.quant.plan import NO_BITS, Plan, make_plan
from pipeline.quant.quantization import Quantization
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.recipe import Equalize, Recipe
from pipeline.quant.reconstruct.engine import reconstruct
from pipeline.quant.reparam.choose import choose_equalizations, choose_streams
from pipeline.quant.reparam.equalize import Equalization, equalize
from pipeline.quant.reparam.power_of_two import Exponents, choose_exponents, scale_stream
from pipeline.quant.rounding import round_weights
from pipeline.quant.search.engine import Pair
from pipeline.quant.search.run import search_products
from pipeline.quant.sequential import quantize_in_order
from pipeline.quant.sites import Sampling, collect_sites
from pipeline.quant.stream import CPU
from pipeline.quant.units import merge_blocks, split_at_products, split_units
from pipeline.quant.work import NoWork, Work, work_of

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
    work: Path | None = None,
    reporter: Reporter | None = None,
    device: torch.device = CPU,
) -> QuantizedModel:
    """Quantize a canonical float graph by a recipe.

    Args:
        graph: canonical float graph.
        images: uint8 `[H, W, 3]` photos, already resized: the first `recipe.calibration_images` for
            calibration, as many as there are up to `recipe.most_images` for what is trained.
        recipe: bits and formats.
        model: what identifies the float model, as plain JSON data.
        progress: called after every calibration photo.
        work: folder that keeps what was trained, so that a killed run goes on where it was.
        reporter: hears of what is trained.
        device: where that happens.

    Raises:
        UserError: see `calibrate` and `reconstruct_mlps`.
    """
    photos = list(islice(images, recipe.most_images))
    kept = work_of(work, graph, recipe, photos)
    prepared, found = find_quantization(graph, photos, recipe, progress, kept, reporter, device)
    plan = make_plan(prepared.graph, recipe, found.bits)
    quantized = quantize_graph(prepared, plan, found)
    return QuantizedModel(quantized, recipe, found, model, fingerprint(graph))


def find_quantization(
    graph: fx.GraphModule,
    photos: Photos,
    recipe: Recipe,
    progress: Progress | None = None,
    work: Work | None = None,
    reporter: Reporter | None = None,
    device: torch.device = CPU,
) -> tuple[fx.GraphModule, Quantization]:
    """The steps of a recipe in order.

    Returns:
        The float graph that its reparameterizations give, and the quantization of that.
    """
    work, reporter = work or NoWork(), reporter or Silent()
    rectified = _rectified(graph, photos, recipe, work, reporter, device)
    if (piece := work.remembered("calibration")) is not None:
        found = pieces.as_quantization(piece)
        prepared = scale_stream(equalize(rectified, found.equalizations), found.exponents)
    else:
        first = photos[: recipe.calibration_images]
        prepared, found = _calibrated(
            rectified, first, _before_training(recipe), progress, reporter
        )
        found = _with_trained_biases(graph, prepared, found)
        work.remember("calibration", pieces.of_quantization(found))
    if recipe.reconstruct is not None:
        teacher = scale_stream(equalize(graph, found.equalizations), found.exponents)
        found = _reconstructed(prepared, teacher, photos, recipe, found, work, reporter, device)
        if recipe.bias_correction:
            first = photos[: recipe.calibration_images]
            found = _corrected(prepared, teacher, first, recipe, found, reporter)
    return prepared, found


def _before_training(recipe: Recipe) -> Recipe:
    """The recipe of the steps before training, which changes the errors that biases make up for."""
    if recipe.reconstruct is None:
        return recipe
    return recipe.model_copy(update={"bias_correction": False})


def _rectified(
    graph: fx.GraphModule,
    photos: Photos,
    recipe: Recipe,
    work: Work,
    reporter: Reporter,
    device: torch.device,
) -> fx.GraphModule:
    """The float graph, with trained ReLU MLPs if the recipe wants them."""
    if recipe.mlp is None:
        return graph
    mlps = find_mlps(graph.graph)
    total = len(mlps) * recipe.mlp.iterations
    with reporter.step("reconstruct MLPs", total) as step:
        results = reconstruct_mlps(
            graph,
            make_plan(graph.graph, recipe),
            recipe.mlp,
            photos,
            lambda mlp: pieces.maybe(pieces.as_mlp, work.remembered(f"mlp-{mlp.act.name}")),
            lambda mlp, result: work.remember(f"mlp-{mlp.act.name}", pieces.of_mlp(result)),
            lambda done, _: step.advance(done),
            device,
        )
    tensors = {m.expand.name: results[m.act.name].expand for m in mlps}
    tensors |= {m.reduce.name: results[m.act.name].reduce for m in mlps}
    return rectify(graph, results, tensors)


def _calibrated(
    graph: fx.GraphModule,
    photos: Photos,
    recipe: Recipe,
    progress: Progress | None,
    reporter: Reporter,
) -> tuple[fx.GraphModule, Quantization]:
    """Reparameterizations, and a quantization without training."""
    check_enough(len(photos), recipe)
    equalizations: tuple[Equalization, ...] = ()
    if recipe.equalize is not None:
        graph, equalizations = _equalized(graph, photos, recipe, recipe.equalize)
    exponents: Exponents = {}
    if recipe.residual.power_of_two and recipe.residual_bits == 8:
        exponents = choose_exponents(graph, make_plan(graph.graph, recipe), photos)
        graph = scale_stream(graph, exponents)
    bits = NO_BITS
    if recipe.mixed is not None:
        bits = allocate_bits(graph, recipe, recipe.mixed, photos, reporter)
    plan = make_plan(graph.graph, recipe, bits)
    if recipe.is_sequential:
        found = quantize_in_order(graph, photos, recipe, plan, _sampling(recipe), progress)
    else:
        found = _in_parallel(graph, plan, recipe, photos, progress)
    return graph, replace(found, bits=bits, equalizations=equalizations, exponents=exponents)


def _equalized(
    graph: fx.GraphModule, photos: Photos, recipe: Recipe, settings: Equalize
) -> tuple[fx.GraphModule, tuple[Equalization, ...]]:
    """Linear streams first, then what products read of the graph that this gives."""
    sites = collect_sites(graph, photos, _sampling(recipe))
    plan = make_plan(graph.graph, recipe)
    streams = choose_streams(graph, plan, recipe, settings, photos, sites)
    if streams:
        graph = equalize(graph, streams)
        plan = make_plan(graph.graph, recipe)
        sites = collect_sites(graph, photos, _sampling(recipe))
    others = choose_equalizations(graph, plan, recipe, settings, photos, sites)
    return equalize(graph, others), (*streams, *others)


def _in_parallel(
    graph: fx.GraphModule, plan: Plan, recipe: Recipe, photos: Photos, progress: Progress | None
) -> Quantization:
    """Quantizers and weights from what the float network computes."""
    calibration = calibrate(graph, photos, recipe, plan, progress)
    activations: dict[str, Quantizer] = dict(calibration.tensors)
    if not _needs_sites(recipe):
        weights = initial_weights(graph, plan, recipe, activations)
        return Quantization(activations, weights, images=calibration.images)
    found = importance.of_products(graph, plan, recipe, photos, _sampling(recipe))
    sampling, weigh = replace(_sampling(recipe), draws=found.draws), found.weights
    sites = collect_sites(graph, photos, sampling)
    rows: Mapping[str, Pair] = {}
    if recipe.search is not None:
        choice = search_products(
            graph.graph, plan, recipe, recipe.search, sites, activations, weigh
        )
        if recipe.search.order == "bridges":
            search_bridges(
                graph,
                plan,
                recipe,
                recipe.search,
                photos,
                sampling,
                sites,
                activations,
                choice,
                weigh,
            )
        activations |= choice.activations
        rows = choice.rows
    weights = round_weights(graph, plan, recipe, activations, rows, sites)
    biases = {}
    if recipe.bias_correction:
        biases = corrected_biases(graph, plan, activations, weights, sites)
    return Quantization(activations, weights, biases, images=calibration.images)


def _with_trained_biases(
    graph: fx.GraphModule, prepared: fx.GraphModule, found: Quantization
) -> Quantization:
    """What rewriting the float graph again would not give: biases that were trained."""
    before = {node.name: node.target for node in graph.graph.nodes}
    nodes = {node.name: node for node in prepared.graph.nodes}
    rectified = [name for name, target in before.items() if nodes[name].target != target]
    biases: dict[str, Tensor] = {}
    for mlp in find_mlps(graph.graph):
        if mlp.act.name in rectified:
            for product in (mlp.expand, mlp.reduce):
                _, bias = weight_and_bias(prepared, nodes[product.name])
                assert bias is not None
                biases[product.name] = bias
    return replace(found, biases={**biases, **found.biases}, rectified=tuple(rectified))


def _reconstructed(
    graph: fx.GraphModule,
    teacher: fx.GraphModule,
    photos: Photos,
    recipe: Recipe,
    found: Quantization,
    work: Work,
    reporter: Reporter,
    device: torch.device,
) -> Quantization:
    assert recipe.reconstruct is not None
    plan = make_plan(graph.graph, recipe, found.bits)
    total = len(merge_blocks(split_units(graph.graph))) * recipe.reconstruct.iterations
    with reporter.step("reconstruct units", total) as step:
        return reconstruct(
            graph,
            plan,
            recipe,
            recipe.reconstruct,
            photos,
            found,
            lambda unit: pieces.maybe(pieces.as_unit, work.remembered(f"unit-{unit.name}")),
            lambda unit, result: work.remember(f"unit-{unit.name}", pieces.of_unit(result)),
            lambda done, _: step.advance(done),
            device,
            teacher,
        )


def _corrected(
    graph: fx.GraphModule,
    teacher: fx.GraphModule,
    photos: Photos,
    recipe: Recipe,
    found: Quantization,
    reporter: Reporter,
) -> Quantization:
    plan = make_plan(graph.graph, recipe, found.bits)
    with reporter.step("correct biases", len(split_at_products(graph.graph))) as step:
        biases = biases_in_order(graph, teacher, plan, found, photos, step.advance)
    return replace(found, biases=biases)


def _needs_sites(recipe: Recipe) -> bool:
    rounding = recipe.weights.rounding
    return recipe.search is not None or recipe.bias_correction or rounding == "compensated"


def _sampling(recipe: Recipe) -> Sampling:
    rows, images = (recipe.search.rows, recipe.search.images) if recipe.search else (16, 8)
    return Sampling(rows or 1 << 30, images)
