"""Bias correction: the mean error of every output becomes zero, of a whole network in order."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.bias_correction import biases_in_order, corrected_biases
from pipeline.quant.calibrate import calibrate
from pipeline.quant.constant_operands import restored_operands
from pipeline.quant.images import as_input
from pipeline.quant.initial import initial_weights, weight_and_bias
from pipeline.quant.mlp.rewrite import find_mlps, rectify
from pipeline.quant.plan import make_plan
from pipeline.quant.quantization import Quantization
from pipeline.quant.quantized import find_quantization
from pipeline.quant.recipe import load_recipe, parse_recipe
from pipeline.quant.sites import Sampling, Weighted, collect_sites, weighted_output
from pipeline.quant.student import Student
from tests.pipeline.quant.conftest import Builder
from tests.pipeline.quant.networks import NETWORKS

aten = torch.ops.aten
RECIPE = load_recipe("w8a8:w3a3").model_copy(update={"calibration_images": 6})


@pytest.fixture
def graph(builder):
    """A convolution with groups, one without a bias, and a linear."""
    x = builder.call(aten.relu.default, builder.stem())
    weight, bias = builder.random_constant(8, 2, 3, 3, std=0.3), builder.random_constant(8)
    x = builder.call(aten.conv2d.default, x, weight, bias, [2, 2], [1, 1], [1, 1], 4)
    x = builder.call(aten.conv2d.default, x, builder.random_constant(8, 8, 1, 1), None)
    return builder.head(builder.tokens(x))


def test_the_mean_error_of_every_output_becomes_zero(graph, images) -> None:
    plan = make_plan(graph.graph, RECIPE)
    activations = calibrate(graph, images, RECIPE, plan).tensors
    weights = initial_weights(graph, plan, RECIPE, activations)
    sites = collect_sites(graph, images[:6], Sampling(rows=8))
    found = corrected_biases(graph, plan, activations, weights, sites)
    nodes = {n.name: n for n in graph.graph.nodes}
    for name, bias in found.items():
        site, (_, before) = sites[name], weight_and_bias(graph, nodes[name])
        assert isinstance(site, Weighted) and before is not None
        x = activations[plan.key_of(nodes[name], 0)].fake(site.x)
        w = weights[name].dequantized().reshape(site.w.shape)
        outputs, wanted = weighted_output(x, w).flatten(1), site.y.flatten(1)
        uncorrected = (outputs - wanted).mean(0).abs().max()
        error = (outputs + bias - wanted - before).mean(0)
        assert uncorrected > 1e-3
        torch.testing.assert_close(error, torch.zeros_like(error), rtol=0, atol=1e-4)


def test_products_without_a_bias_stay_without(graph, images) -> None:
    plan = make_plan(graph.graph, RECIPE)
    weights = initial_weights(graph, plan, RECIPE, {})
    sites = collect_sites(graph, images[:2], Sampling())
    found = corrected_biases(graph, plan, {}, weights, sites)
    assert found.keys() == {"conv2d_default", "conv2d_default_1", "linear_default"}


Photos = list[np.ndarray[Any, Any]]


def quantized(graph: fx.GraphModule, photos: Photos, **content: Any) -> Quantization:
    """By observers at 3 bits."""
    few = {"name": "x", "calibration_images": len(photos)}
    bits = {"weights": {"bits": 3}, "activations": {"bits": 3}}
    return find_quantization(graph, photos, parse_recipe(few | bits | content, "x"))[1]


def channel_means(student: Student, photos: Photos) -> dict[str, Tensor]:
    """Mean of every channel of every product with weights."""
    nodes = [n for n in student.graph.graph.nodes if n.op in ("placeholder", "call_function")]
    found: dict[str, list[Tensor]] = {}

    def observe(product: fx.Node, _: tuple[Tensor, ...], result: Tensor) -> None:
        if product.target in walk.WEIGHTED:
            rows = result.movedim(1 if product.target is walk.CONV else -1, 0).flatten(1)
            found.setdefault(product.name, []).append(rows.mean(1))

    for photo in photos:
        student.run(nodes, {nodes[0]: as_input(photo, student.graph)}, observe)
    return {name: torch.stack(means).mean(0) for name, means in found.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_in_order_the_mean_error_of_every_product_falls_to_zero(name: str, images: Photos) -> None:
    """Of the whole quantized network, where every correction changes what later products read."""
    graph, photos = NETWORKS[name](Builder()), images[:6]
    found, plan = quantized(graph, photos), make_plan(graph.graph, RECIPE)
    fakes = {key: quantizer.fake for key, quantizer in found.activations.items()}
    weights = {key: weight.dequantized() for key, weight in found.weights.items()}
    weights |= restored_operands(graph)
    biases = biases_in_order(graph, graph, plan, found, photos)
    wanted = channel_means(Student(graph, plan, {}, {}, {}), photos)
    before, after = (
        channel_means(Student(graph, plan, fakes, weights, some), photos) for some in ({}, biases)
    )
    assert biases.keys() == wanted.keys()
    for product, target in wanted.items():
        size = float(target.abs().max())
        assert (before[product] - target).abs().max() > 1e-3 * size
        assert (after[product] - target).abs().max() < 1e-5 * size


def test_a_bias_in_front_of_an_own_relu_stays(vit: fx.GraphModule, images: Photos) -> None:
    """The float network has another activation there, and other values in front of it."""
    (mlp,) = find_mlps(vit.graph)
    graph = rectify(vit, [mlp.act.name])
    content = quantized(graph, images[:4])
    start = {mlp.expand.name: torch.ones(16), mlp.reduce.name: torch.ones(8)}
    found = Quantization(
        content.activations, content.weights, start, rectified=(mlp.act.name,), images=4
    )
    plan = make_plan(graph.graph, RECIPE)
    biases = biases_in_order(graph, vit, plan, found, images[:4])
    assert torch.equal(biases[mlp.expand.name], torch.ones(16))
    assert not torch.allclose(biases[mlp.reduce.name], torch.ones(8))


@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_training_starts_from_biases_as_they_were(
    vit: fx.GraphModule, images: Photos, order: str
) -> None:
    """So that it gives the same with and without a correction, which comes afterwards."""
    content: dict[str, Any] = {
        "activations": {"bits": 3, "order": order},
        "reconstruct": {"images": 4, "iterations": 3, "batch": 2, "importance": "none"},
    }
    plain, corrected = (
        quantized(vit, images[:4], **content, bias_correction=wanted) for wanted in (False, True)
    )
    assert plain.activations == corrected.activations
    for name, weight in plain.weights.items():
        assert torch.equal(weight.codes, corrected.weights[name].codes)
    assert plain.biases == {} and corrected.biases.keys() == corrected.weights.keys()
    last = next(n for n in vit.graph.nodes if n.meta.get("module_path") == "head")
    _, bias = weight_and_bias(vit, last)
    assert bias is not None and not torch.equal(corrected.biases[last.name], bias)
