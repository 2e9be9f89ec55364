"""Bias correction: the mean error of every output becomes zero."""

import pytest
import torch

from pipeline.quant.bias_correction import corrected_biases
from pipeline.quant.calibrate import calibrate
from pipeline.quant.initial import initial_weights, weight_and_bias
from pipeline.quant.plan import make_plan
from pipeline.quant.recipe import load_recipe
from pipeline.quant.sites import Sampling, Weighted, collect_sites, weighted_output

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
