"""Units come closer to the float network, and what was trained before is not trained again."""

import pytest
import torch

from pipeline.quant.evaluate import sqnr_db
from pipeline.quant.insert import quantize_graph
from pipeline.quant.plan import make_plan
from pipeline.quant.quantized import find_quantization
from pipeline.quant.recipe import parse_recipe
from pipeline.quant.reconstruct.engine import UnitResult, reconstruct
from pipeline.quant.reconstruct.settings import Reconstruct
from pipeline.quant.simulate import simulate

RECIPE = parse_recipe(
    {"name": "x", "weights": {"bits": 3, "symmetric": False}, "activations": {"bits": 4}}, "x"
)
FAST = Reconstruct(iterations=60, batch=8, rounding_rate=0.05, scale_rate=1e-3, images=32)


@pytest.fixture
def start(vit, images):
    _, found = find_quantization(vit, images, RECIPE)
    return make_plan(vit.graph, RECIPE), found


def _quality(vit, plan, found, images) -> float:
    return sqnr_db(simulate(vit, images), simulate(quantize_graph(vit, plan, found), images))


@pytest.mark.parametrize("importance", ["none", "aph"])
def test_trained_units_are_closer_to_the_float_network(vit, images, start, importance) -> None:
    plan, found = start
    settings = FAST.model_copy(update={"importance": importance})
    trained = reconstruct(vit, plan, RECIPE, settings, images, found)
    assert _quality(vit, plan, trained, images) > _quality(vit, plan, found, images) + 1


def test_training_repeats_itself(vit, images, start) -> None:
    plan, found = start
    settings = FAST.model_copy(update={"iterations": 3})
    torch.manual_seed(1)
    first = reconstruct(vit, plan, RECIPE, settings, images, found)
    torch.manual_seed(2)
    second = reconstruct(vit, plan, RECIPE, settings, images, found)
    assert first.activations == second.activations
    assert all(torch.equal(first.weights[n].codes, second.weights[n].codes) for n in first.weights)


def test_units_that_are_remembered_are_not_trained(vit, images, start) -> None:
    plan, found = start
    settings = FAST.model_copy(update={"iterations": 5})
    results: dict[str, UnitResult] = {}
    whole = reconstruct(
        vit,
        plan,
        RECIPE,
        settings,
        images,
        found,
        remember=lambda unit, result: results.update({unit.name: result}),
    )
    first, *others = results
    trained: list[str] = []
    again = reconstruct(
        vit,
        plan,
        RECIPE,
        settings,
        images,
        found,
        remembered=lambda unit: results[first] if unit.name == first else None,
        remember=lambda unit, result: trained.append(unit.name),
    )
    assert trained == others
    assert again.activations == whole.activations


def test_a_unit_that_training_makes_worse_stays_as_it_was(vit, images, start) -> None:
    plan, found = start
    # Steps that throw every scale far off.
    settings = FAST.model_copy(update={"scale_rate": 50.0, "iterations": 3})
    trained = reconstruct(vit, plan, RECIPE, settings, images, found)
    assert trained.activations == found.activations


def test_progress_counts_steps(vit, images, start) -> None:
    plan, found = start
    told: list[tuple[int, int]] = []
    settings = FAST.model_copy(update={"iterations": 2})
    reconstruct(
        vit, plan, RECIPE, settings, images, found, progress=lambda *done: told.append(done)
    )
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1] and {1, 2, 3} <= {done for done, _ in told}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_results_on_the_cpu(vit, images, start) -> None:
    plan, found = start
    settings = FAST.model_copy(update={"iterations": 3})
    cuda = torch.device("cuda")
    trained = reconstruct(vit, plan, RECIPE, settings, images, found, device=cuda)
    assert all(w.codes.device.type == "cpu" for w in trained.weights.values())
