"""Squared gradients, and where samples are taken by them."""

import pytest
import torch

from pipeline.quant.importance import of_products
from pipeline.quant.importance.gradients import fisher, inclusion, systematic_sample
from pipeline.quant.plan import make_plan
from pipeline.quant.recipe import Recipe
from pipeline.quant.search.settings import Search
from pipeline.quant.sites import Sampling, collect_sites
from pipeline.quant.student import Student

FEW = Sampling(rows=3, images=2)


@pytest.mark.parametrize("kind", ["fisher", "divergence"])
def test_weights_are_shaped_like_the_samples(vit, images, kind: str) -> None:
    recipe = Recipe(name="x", search=Search(importance=kind), calibration_images=4)
    found = of_products(vit, make_plan(vit.graph, recipe), recipe, images[:4], FEW)
    sites = collect_sites(vit, images[:4], Sampling(rows=3, images=2, draws=found.draws))
    assert {name: t.shape for name, t in found.weights.items()} == {
        name: site.y.shape for name, site in sites.items()
    }
    values = torch.cat([t.flatten() for t in found.weights.values()])
    assert float(values.min()) >= 0
    assert float(values.mean()) == pytest.approx(1, rel=1e-4)
    for name, site in sites.items():
        assert torch.equal(site.positions, found.draws[name].positions)


def test_rows_alone_are_drawn_by_gradients_and_weigh_the_same(vit, images) -> None:
    plan = make_plan(vit.graph, Recipe(name="x"))
    recipe = Recipe(name="x", search=Search(importance="rows"))
    found = of_products(vit, plan, recipe, images[:2], FEW)
    assert not found.weights
    expected = fisher(vit, plan, images[:2], FEW).draws
    assert found.draws.keys() == expected.keys()
    for name, draw in found.draws.items():
        assert torch.equal(draw.positions, expected[name].positions)
        every = draw.importance
        torch.testing.assert_close(every.mean(dim=1), torch.ones(len(every)))


@pytest.mark.parametrize("taken", [1, 4, 16, 40])
def test_rows_are_drawn_with_the_chances_that_their_counts_assume(taken: int) -> None:
    energy = torch.ones(40, dtype=torch.float64)
    energy[7] = 100
    energy[9] = 20
    share = (energy / energy.sum() + 1 / 40) / 2
    chances = inclusion(share, taken)
    assert float(chances.sum()) == pytest.approx(taken) and float(chances.max()) <= 1 + 1e-12
    drawn, total = torch.zeros(40), 0.0
    for seed in range(2000):
        picked = systematic_sample(chances, torch.Generator().manual_seed(seed))
        assert len(picked.unique()) == taken
        drawn[picked] += 1 / 2000
        total += float((taken / 40 / chances[picked]).mean()) / 2000
    torch.testing.assert_close(drawn.double(), chances, atol=0.06, rtol=0)
    assert total == pytest.approx(1, abs=0.03)
    if taken == 40:
        assert bool((chances == 1).all())


def test_no_importance_gives_no_weights_and_even_draws(vit, images) -> None:
    recipe = Recipe(name="x", search=Search())
    found = of_products(vit, make_plan(vit.graph, recipe), recipe, images, FEW)
    assert not found.weights and not found.draws


def test_rows_with_large_gradients_are_drawn_more_often_and_count_less(vit, images) -> None:
    plan = make_plan(vit.graph, Recipe(name="x"))
    everything = fisher(vit, plan, images[:1], Sampling(rows=1 << 20))
    name = next(n for n in vit.graph.nodes if "linear" in n.name).name
    energy = everything.weights[name].sum(dim=(1, 2))
    assert torch.equal(everything.draws[name].positions[0], torch.arange(len(energy)))
    drawn = torch.zeros(len(energy), dtype=torch.float64)
    estimates = []
    for seed in range(300):
        draw = fisher(vit, plan, images[:1], Sampling(rows=1, seed=seed)).draws[name]
        drawn[draw.positions[0]] += 1 / 300
        estimates.append(float(draw.counts.mean()))
    share = (energy.double() / energy.sum() + 1 / len(energy)) / 2
    # the label is drawn anew with every seed, so that shares vary a little
    assert int(drawn.argmax()) in share.topk(3).indices
    assert sum(estimates) / 300 == pytest.approx(1, abs=0.15)


def test_at_the_logits_it_is_the_gradient_of_the_cross_entropy(vit, images) -> None:
    plan = make_plan(vit.graph, Recipe(name="x"))
    (head,) = (n for n in vit.graph.nodes if n.name in plan.roles.head)
    found = fisher(vit, plan, images[:1], Sampling(rows=1)).weights[head.name].flatten()
    nodes = [n for n in vit.graph.nodes if n.op in ("placeholder", "call_function")]
    image = torch.from_numpy(images[0]).float().unsqueeze(0)
    p = Student(vit, plan, {}, {}, {}).run(nodes, {nodes[0]: image})[head].softmax(-1).flatten()
    by_label = (p - torch.eye(len(p))).square()
    by_label /= by_label.mean(dim=1, keepdim=True)
    assert float((by_label - found / found.mean()).abs().amax(dim=1).min()) < 1e-3
