"""The engine: less error than its start, the same result again, and from where it was stopped."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from pipeline.quant.evaluate import sqnr_db
from pipeline.quant.insert import quantize_graph
from pipeline.quant.plan import Plan, make_plan
from pipeline.quant.quantization import Quantization
from pipeline.quant.quantized import find_quantization
from pipeline.quant.recipe import Recipe, parse_recipe
from pipeline.quant.reconstruct.engine import UnitResult, reconstruct
from pipeline.quant.reconstruct.settings import Reconstruct
from pipeline.quant.simulate import simulate
from pipeline.quant.units import Unit, merge_blocks, split_units
from tests.pipeline.quant.conftest import Builder
from tests.pipeline.quant.networks import NETWORKS

PHOTOS = list(np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8))
SHORT = Reconstruct(
    images=16, iterations=3, batch=4, rounding_rate=1e-2, scale_rate=1e-3, importance="none"
)
LONGER = SHORT.model_copy(
    update={
        "iterations": 40,
        "batch": 8,
        "rounding_rate": 0.1,
        "scale_rate": 5e-3,
        "regularizer": 0.03,
        "drop": 0.1,
    }
)


@cache
def start(name: str) -> tuple[fx.GraphModule, Plan, Recipe, Quantization]:
    """A network and its quantization by observers, at 3 bits."""
    content: dict[str, Any] = {
        "name": "w3a3",
        "calibration_images": 16,
        "weights": {"bits": 3, "symmetric": False},
        "activations": {"bits": 3, "per_head": True},
        "softmax": {"format": "adalog"},
    }
    recipe = parse_recipe(content, "test")
    graph, found = find_quantization(NETWORKS[name](Builder()), PHOTOS, recipe)
    return graph, make_plan(graph.graph, recipe), recipe, found


def run(name: str, settings: Reconstruct, **hooks: Any) -> Quantization:
    graph, plan, recipe, found = start(name)
    return reconstruct(graph, plan, recipe, settings, PHOTOS, found, **hooks)


def assert_same(one: Quantization, other: Quantization) -> None:
    assert one.activations == other.activations
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        assert torch.equal(weight.codes, other.weights[name].codes)
        assert torch.equal(weight.scale, other.weights[name].scale)


def test_training_lessens_the_error_of_the_logits() -> None:
    graph, plan, _, found = start("transformer")
    exact = simulate(graph, PHOTOS)
    before, after = (
        sqnr_db(exact, simulate(quantize_graph(graph, plan, one), PHOTOS))
        for one in (found, run("transformer", LONGER))
    )
    assert after > before + 2


def test_formats_and_all_else_stay() -> None:
    graph, plan, recipe, found = start("hybrid")
    trained = run("hybrid", SHORT)
    assert trained.activations.keys() == found.activations.keys()
    for key, quantizer in trained.activations.items():
        assert quantizer.format == found.activations[key].format
    assert trained.weights.keys() == found.weights.keys()
    for name, weight in trained.weights.items():
        assert torch.equal(weight.scale, found.weights[name].scale)
        rows = weight.codes.flatten(1).int()
        assert ((rows.amax(1) - rows.amin(1)) < 8).all()
    assert trained.biases is found.biases
    assert trained.images == found.images
    quantize_graph(graph, plan, trained)


def test_scales_and_rounding_are_trained() -> None:
    _, _, _, found = start("convolutional")
    trained = run("convolutional", LONGER.model_copy(update={"iterations": 10}))
    moved = [k for k, q in trained.activations.items() if q != found.activations[k]]
    turned = [
        n for n, w in trained.weights.items() if not torch.equal(w.codes, found.weights[n].codes)
    ]
    assert len(moved) > 2 and turned
    fixed = run("convolutional", SHORT.model_copy(update={"scale_rate": 0.0}))
    assert fixed.activations == found.activations


def test_the_seed_decides_the_result() -> None:
    settings = SHORT.model_copy(update={"iterations": 4})
    first, second = (run("convolutional", settings) for _ in range(2))
    assert_same(first, second)
    other = run("convolutional", settings.model_copy(update={"seed": 1}))
    assert other.activations != first.activations


@pytest.mark.parametrize("inputs", ["float", "quantized"])
def test_a_stopped_run_goes_on_at_its_unit(inputs: str) -> None:
    settings = SHORT.model_copy(update={"inputs": inputs})
    whole = run("transformer", settings)
    kept: dict[str, UnitResult] = {}
    trained: list[str] = []

    class Stopped(Exception):
        pass

    def remember(unit: Unit, result: UnitResult) -> None:
        if len(kept) == 2 and len(trained) == 2:
            raise Stopped
        trained.append(unit.name)
        kept[unit.name] = result

    with pytest.raises(Stopped):
        run("transformer", settings, remember=remember)
    assert len(trained) == 2
    trained.append("stopped here")
    resumed = run(
        "transformer", settings, remembered=lambda unit: kept.get(unit.name), remember=remember
    )
    assert_same(resumed, whole)
    units = [unit.name for unit in merge_blocks(split_units(start("transformer")[0].graph))]
    assert [n for n in trained if n != "stopped here"] == units


def test_progress_counts_the_steps_of_all_units() -> None:
    seen: list[tuple[int, int]] = []
    run("convolutional", SHORT, progress=lambda done, total: seen.append((done, total)))
    units = merge_blocks(split_units(start("convolutional")[0].graph))
    assert {total for _, total in seen} == {3 * len(units)}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == 3 * len(units)


def test_more_photos_than_there_are_is_no_mistake() -> None:
    run("convolutional", SHORT.model_copy(update={"images": 1000, "batch": 100}))
