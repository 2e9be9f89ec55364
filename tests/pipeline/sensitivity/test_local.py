"""What one pass over the photos tells."""

import math

import numpy as np
import pytest
import torch

from pipeline.quant.evaluate import sqnr_db
from pipeline.quant.simulate import simulate
from pipeline.sensitivity.layers import find_layers, is_activation
from pipeline.sensitivity.local import local_figures
from pipeline.sensitivity.ranges import RangeStatistics


def test_the_last_layer_has_the_sqnr_of_the_logits(network):
    found = local_figures(network.graph, network.floats, network.photos)
    logits = [simulate(graph, network.photos) for graph in (network.floats, network.graph)]
    assert list(found.sqnr_db.values())[-1] == pytest.approx(sqnr_db(*logits), abs=1e-3)


def test_the_same_network_has_no_noise(network):
    found = local_figures(network.floats, network.floats, network.photos)
    assert all(math.isinf(value) for value in found.sqnr_db.values())


def test_all_layers_and_tensors_have_figures(network):
    found = local_figures(network.graph, network.floats, network.photos)
    assert list(found.sqnr_db) == [layer.name for layer in find_layers(network.graph)]
    pairs = [node.name for node in network.graph.graph.nodes if is_activation(node)]
    assert [tensor.name for tensor in found.ranges] == pairs


def test_ranges_are_those_of_the_float_values(network):
    found = local_figures(network.graph, network.floats, network.photos).ranges
    image = found[0]
    assert (image.low, image.high) == (network.photos.min(), network.photos.max())
    for tensor in found:
        assert tensor.low <= tensor.percentiles["0.1"] <= tensor.percentiles["99.9"] <= tensor.high
        assert tensor.low == min(tensor.channel_low) and tensor.high == max(tensor.channel_high)
        assert all(scale > 0 for scale in tensor.quantizer.scale)


def test_what_codes_cannot_hold_is_clipped(network):
    for tensor in local_figures(network.graph, network.floats, network.photos).ranges:
        chosen = tensor.quantizer
        assert (chosen.low is None) == (chosen.operator != "quantize")
        if chosen.low is not None and chosen.low <= tensor.low and tensor.high <= chosen.high:
            assert tensor.clipped == 0


@pytest.mark.parametrize(("shape", "axis"), [((1, 3, 4, 5), 1), ((1, 6, 3), 2), ((1, 3), 1)])
def test_channels_are_found_in_maps_tokens_and_vectors(shape, axis, network):
    value = torch.arange(float(np.prod(shape))).reshape(shape)
    value.select(axis, 1).mul_(100)
    statistics = RangeStatistics()
    statistics.update(value)
    statistics.update(-value)
    pair = next(node for node in network.graph.graph.nodes if is_activation(node))
    found = statistics.finish(network.graph, pair)
    assert len(found.channel_high) == 3
    assert np.argmax(found.channel_high) == 1
    assert found.channel_low == tuple(-high for high in found.channel_high)
    assert found.spread > 20
