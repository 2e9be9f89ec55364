"""Scores say what a group's quantizers alone do."""

import numpy as np
import pytest
import torch

from pipeline.quant import walk
from pipeline.quant.allocate.groups import find_groups
from pipeline.quant.allocate.scores import SCORES, nuclear_norm, score_groups
from pipeline.quant.evaluate import sqnr_db
from pipeline.quant.initial import weight_and_bias
from pipeline.quant.recipe import load_recipe
from pipeline.quant.roles import resolve_roles
from pipeline.quant.simulate import simulate
from pipeline.quant.weights import WeightFormat, quantize_weight

W8A8 = load_recipe("w8a8")


def _scores(graph, photos, name: str, widths=(3, 5, 8)) -> list[list[float]]:
    groups = find_groups(graph.graph, resolve_roles(graph.graph), "blocks")
    return score_groups(graph, W8A8, groups, widths, photos, SCORES[name])


@pytest.mark.parametrize("name", SCORES)
def test_fewer_bits_do_more_harm(vit, images, name: str) -> None:
    for scores in _scores(vit, images[:3], name):
        assert scores == sorted(scores, reverse=True) and scores[-1] > 0


def test_sqnr_is_that_of_the_logits_with_only_one_group_quantized(vit, images) -> None:
    """The stem reads pixels, which are integers anyway, so that only its weights change."""
    stem = next(n for n in vit.graph.nodes if n.target is walk.CONV)
    (expected,) = _scores(vit, images[:1], "sqnr", (3,))[0]
    reference = simulate(vit, images[:1])
    weight, _ = weight_and_bias(vit, stem)
    coarse = quantize_weight(weight, WeightFormat(3), "mse").dequantized()
    setattr(vit, str(stem.args[1].target), coarse)
    assert -10 * np.log10(expected) == pytest.approx(
        sqnr_db(reference, simulate(vit, images[:1])), abs=1e-3
    )


def test_a_group_that_computes_nothing_does_no_harm(vit, images) -> None:
    last = next(n for n in vit.graph.nodes if n.meta.get("module_path") == "mlp.fc2")
    getattr(vit, str(last.args[1].target)).zero_()
    for name in SCORES:
        assert _scores(vit, images[:2], name)[2] == [0.0, 0.0, 0.0]


def test_nuclear_norm_is_the_trace_of_the_root_of_the_gram_matrix() -> None:
    random = np.random.default_rng(0).normal(size=(2, 5, 3))
    expected = sum(np.sqrt(np.linalg.eigvalsh(m.T @ m)).sum() for m in random)
    assert nuclear_norm(torch.from_numpy(random)) == pytest.approx(expected)


def test_progress_counts_photos_of_every_width(vit, images) -> None:
    seen: list[tuple[int, int]] = []
    groups = find_groups(vit.graph, resolve_roles(vit.graph), "blocks")
    score_groups(
        vit, W8A8, groups, (4, 8), images[:2], SCORES["nuclear"], lambda *at: seen.append(at)
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
