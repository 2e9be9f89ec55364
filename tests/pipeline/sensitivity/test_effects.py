"""The effect of layers on the logits."""

import math

import numpy as np

from pipeline.quant.simulate import simulate
from pipeline.sensitivity.effects import Evaluation, layer_effects
from pipeline.sensitivity.layers import find_layers


def test_a_layer_alone_does_less_harm_than_all(network):
    logits = simulate(network.floats, network.photos)
    labels = logits.argmax(axis=1)
    evaluation = Evaluation(list(network.photos), labels, logits)
    whole = evaluation.effect(network.graph)
    layers = find_layers(network.graph)
    done: list[int] = []
    found = list(layer_effects(network.graph, network.floats, layers, evaluation, done.append))
    assert done == list(range(1, 2 * len(layers) + 1))
    assert all(effects.alone.sqnr_db > whole.sqnr_db - 1 for effects in found)
    noise = [10 ** (-effects.alone.sqnr_db / 10) for effects in found]
    # noise of many small sources adds up
    assert abs(10 * math.log10(sum(noise)) + whole.sqnr_db) < 6
    assert max(effects.spared.sqnr_db for effects in found) > whole.sqnr_db
    assert all(effects.alone.top1 == effects.alone.agreement for effects in found)


def test_the_float_network_has_no_effect(network):
    logits = simulate(network.floats, network.photos)
    labels = np.zeros(len(logits), np.int64)
    effect = Evaluation(list(network.photos), labels, logits).effect(network.floats)
    assert math.isinf(effect.sqnr_db) and effect.agreement == 1
