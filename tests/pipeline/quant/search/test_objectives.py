"""Objectives against plain NumPy in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.quant.search.objectives import OBJECTIVES, ranking


def samples(*shape: int, candidates: int = 3) -> tuple[Tensor, Tensor]:
    """Outputs `[C, *shape]` near the wanted ones `[*shape]`."""
    random = torch.Generator().manual_seed(0)
    wanted = torch.randn(*shape, generator=random)
    return wanted + 0.3 * torch.randn(candidates, *shape, generator=random), wanted


def by_hand(name: str, outputs: np.ndarray, wanted: np.ndarray, weight: np.ndarray) -> float:
    """An objective for one candidate and one group: outputs and wanted `[I, n]`."""
    if name == "mse":
        return float((weight * (outputs - wanted) ** 2).mean())
    if name == "pearson":
        return float(
            np.mean([1 - np.corrcoef(o, w)[0, 1] for o, w in zip(outputs, wanted, strict=True)])
        )
    cosines = [
        o @ w / np.linalg.norm(o) / np.linalg.norm(w) for o, w in zip(outputs, wanted, strict=True)
    ]
    return float(1 - np.mean(cosines))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("kept", [(), (2,), (3, 4)])
def test_every_candidate_and_group_is_judged_as_by_hand(name: str, kept: tuple[int, ...]) -> None:
    outputs, wanted = samples(4, 3, 2, 5)
    found = OBJECTIVES[name](outputs, wanted, kept, None).numpy()
    o, w = outputs.double().numpy(), wanted.double().numpy()
    groups = tuple(outputs.shape[d] for d in kept)
    assert found.shape == (3, *groups)
    # groups in front: [C, *groups, I, n] and [*groups, I, n]
    o = np.moveaxis(o, kept, range(1, 1 + len(kept))).reshape(3, *groups, 4, -1)
    w = np.moveaxis(w, [d - 1 for d in kept], range(len(kept))).reshape(*groups, 4, -1)
    for c in range(3):
        for group in np.ndindex(groups):
            expected = by_hand(name, o[c][group], w[group], np.ones(()))
            assert found[c][group] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_importance_weighs_squared_errors() -> None:
    outputs, wanted = samples(4, 6)
    weight = torch.rand(4, 6, generator=torch.Generator().manual_seed(1))
    found = OBJECTIVES["mse"](outputs, wanted, (), weight)
    for c in range(3):
        parts = (t.double().numpy() for t in (outputs[c], wanted, weight))
        assert float(found[c]) == pytest.approx(by_hand("mse", *parts), rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_arguments_are_left_alone_and_perfection_costs_nothing(name: str) -> None:
    outputs, wanted = samples(4, 6)
    before = outputs.clone(), wanted.clone()
    OBJECTIVES[name](outputs, wanted, (), None)
    assert torch.equal(outputs, before[0]) and torch.equal(wanted, before[1])
    assert float(OBJECTIVES[name](wanted.unsqueeze(0), wanted, (), None)) == pytest.approx(
        0, abs=1e-6
    )


def test_cosine_ignores_the_scale_and_pearson_the_offset_as_well() -> None:
    outputs, wanted = samples(4, 6)
    for name, changed in (("cosine", outputs * 3), ("pearson", outputs * 3 + 2)):
        torch.testing.assert_close(
            OBJECTIVES[name](changed, wanted, (), None),
            OBJECTIVES[name](outputs, wanted, (), None),
            rtol=1e-3,
            atol=1e-5,
        )


def test_constant_outputs_have_the_loss_1_and_no_nan() -> None:
    _, wanted = samples(4, 6)
    for name in ("cosine", "pearson"):
        assert OBJECTIVES[name](torch.zeros(1, 4, 6), wanted, (), None).tolist() == [1.0]


def test_ranking_is_the_mean_hinge_over_its_pairs() -> None:
    outputs, wanted = samples(2, 3, 4, 7)
    random = torch.Generator().manual_seed(0)
    columns = [torch.randint(7, (64,), generator=random).tolist() for _ in range(2)]
    o, w = outputs.double().numpy(), wanted.double().numpy()
    for c, loss in enumerate(ranking(outputs, wanted, margin=0.2).tolist()):
        hinges = [
            np.maximum(0.2 - (o[c][..., i] - o[c][..., j]) * np.sign(w[..., i] - w[..., j]), 0)
            for i, j in zip(*columns, strict=True)
        ]
        assert loss == pytest.approx(np.mean(hinges), rel=1e-5)


def test_ranking_forgives_what_keeps_the_order_with_a_margin() -> None:
    wanted = torch.arange(8.0).reshape(1, 1, 1, 8)
    far, near, reversed_ = wanted, wanted * 0.01, -wanted
    losses = ranking(torch.stack([far, near, reversed_]), wanted)
    # Pairs of a column with itself have no order: they cost the margin at most.
    assert losses[0] < 0.05 < losses[1] < losses[2]
