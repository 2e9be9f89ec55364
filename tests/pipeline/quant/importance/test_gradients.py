"""Squared gradients, at the positions that were sampled."""

import pytest
import torch

from pipeline.quant.importance import of_products
from pipeline.quant.importance.gradients import fisher
from pipeline.quant.plan import make_plan
from pipeline.quant.recipe import Recipe
from pipeline.quant.search.settings import Search
from pipeline.quant.sites import Sampling, collect_sites
from pipeline.quant.student import Student


@pytest.mark.parametrize("kind", ["fisher", "divergence"])
def test_weights_are_shaped_like_the_samples_and_have_mean_one(vit, images, kind: str) -> None:
    recipe = Recipe(name="x", search=Search(importance=kind), calibration_images=4)
    sites = collect_sites(vit, images[:4], Sampling(rows=3, images=2))
    found = of_products(vit, make_plan(vit.graph, recipe), recipe, images[:4], sites)
    assert {name: t.shape for name, t in found.items()} == {
        name: site.y.shape for name, site in sites.items()
    }
    values = torch.cat([t.flatten() for t in found.values()])
    assert float(values.min()) >= 0
    assert float(values.mean()) == pytest.approx(1, rel=1e-4)


def test_no_importance_gives_no_weights(vit, images) -> None:
    recipe = Recipe(name="x", search=Search())
    assert of_products(vit, make_plan(vit.graph, recipe), recipe, images, {}) == {}


def test_at_the_logits_it_is_the_gradient_of_the_cross_entropy(vit, images) -> None:
    plan = make_plan(vit.graph, Recipe(name="x"))
    sites = collect_sites(vit, images[:1], Sampling(rows=1))
    (head,) = (n for n in vit.graph.nodes if n.name in plan.roles.head)
    found = fisher(vit, plan, images[:1], sites)[head.name].flatten()
    nodes = [n for n in vit.graph.nodes if n.op in ("placeholder", "call_function")]
    image = torch.from_numpy(images[0]).float().unsqueeze(0)
    p = Student(vit, plan, {}, {}, {}).run(nodes, {nodes[0]: image})[head].softmax(-1).flatten()
    by_label = (p - torch.eye(len(p))).square()
    by_label /= by_label.mean(dim=1, keepdim=True)
    assert float((by_label - found / found.mean()).abs().amax(dim=1).min()) < 1e-3
