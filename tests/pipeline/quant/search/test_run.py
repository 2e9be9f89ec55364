"""The search over a graph: better than its start on the samples, whatever the settings."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from pipeline.quant.calibrate import calibrate
from pipeline.quant.plan import Plan, make_plan
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.recipe import Recipe, parse_recipe
from pipeline.quant.search.run import Choice, search_products
from pipeline.quant.search.settings import Search
from pipeline.quant.sites import Paired, Sampling, Site, Weighted, collect_sites, weighted_output
from pipeline.quant.weights import WeightFormat, fake

aten = torch.ops.aten

W4A4: dict[str, Any] = {
    "name": "w4a4",
    "calibration_images": 8,
    "weights": {"bits": 4},
    "activations": {"bits": 4, "observer": "minmax"},
    "softmax": {"format": "log2"},
}
SETTINGS = {
    "plain": Search(count=20),
    "rounds, activations first": Search(count=20, rounds=2, first="activations"),
    "refined": Search(count=24, zero_points=4, refine=3, keep=4),
    "schemes": Search(count=20, schemes=True),
    "cosine": Search(count=20, objective="cosine", ranking=0.1),
    "pearson": Search(count=20, objective="pearson"),
}


class Case:
    """A graph under a recipe, with its start and samples."""

    def __init__(self, graph: fx.GraphModule, images: Any, content: dict[str, Any]) -> None:
        self.graph = graph
        self.recipe: Recipe = parse_recipe(content, "test")
        self.plan: Plan = make_plan(graph.graph, self.recipe)
        self.start = calibrate(graph, images, self.recipe, self.plan).tensors
        self.sites: dict[str, Site] = collect_sites(graph, images[:8], Sampling(4, 4))

    def search(self, settings: Search, importance: dict[str, Tensor] | None = None) -> Choice:
        return search_products(
            self.graph.graph,
            self.plan,
            self.recipe,
            settings,
            self.sites,
            self.start,
            importance or {},
        )

    def keys(self, site: Site) -> tuple[str, ...]:
        node = next(n for n in self.graph.graph.nodes if n.name == site.name)
        indices = (0, 1) if isinstance(site, Paired) else (0,)
        return tuple(self.plan.key_of(node, index) for index in indices)

    def error(self, site: Site, found: dict[str, Quantizer], choice: Choice) -> float:
        """Squared error of a product with these quantizers and the choice's weights."""
        values = [site.x] if isinstance(site, Weighted) else [site.a, site.b]
        read = []
        for key, x in zip(self.keys(site), values, strict=True):
            quantizer = found[key]
            if (heads := self.plan.heads.get(key)) is not None:
                quantizer = self._by_head(quantizer, heads.head)
            read.append(quantizer.fake(x))
        if isinstance(site, Paired):
            return float((read[0] @ read[1] - site.y).square().mean())
        target = WeightFormat(self.plan.weights[site.name])
        scale, zero = (p.reshape(site.w.shape[:2]) for p in choice.rows[site.name])
        outputs = weighted_output(read[0], fake(site.w, scale, zero, target))
        return float((outputs - site.y).square().mean())

    @staticmethod
    def _by_head(quantizer: Any, head: tuple[int, ...]) -> Quantizer:
        """Scales by head along axis 1 of sampled matrices."""
        first = [head.index(h) for h in range(max(head) + 1)]
        scale, zero = (
            tuple(v[i] for i in first) if len(v) > 1 else v * len(first)
            for v in (quantizer.scale, quantizer.zero_point)
        )
        return replace(quantizer, scale=scale, zero_point=zero, axis=1)


@pytest.fixture
def attention(builder) -> fx.GraphModule:
    """Attention with projections of their own for q, k and v, then an MLP."""
    x = builder.tokens(builder.stem())
    normed = builder.norm(x)
    q, k, v = (
        builder.call(
            aten.permute.default,
            builder.call(aten.reshape.default, builder.linear(normed, 8, path=name), [1, 64, 2, 4]),
            [0, 2, 1, 3],
        )
        for name in "qkv"
    )
    k = builder.call(aten.permute.default, k, [0, 1, 3, 2])
    weights = builder.call(aten.softmax.int, builder.call(aten.matmul.default, q, k), -1)
    mixed = builder.call(aten.matmul.default, weights, v)
    mixed = builder.call(aten.permute.default, mixed, [0, 2, 1, 3])
    mixed = builder.call(aten.reshape.default, mixed, [1, 64, 8])
    x = builder.call(aten.add.Tensor, x, builder.linear(mixed, 8, path="proj"))
    hidden = builder.call(aten.gelu.default, builder.linear(builder.norm(x), 16))
    return builder.head(builder.linear(hidden, 8))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_parameters_are_in_the_plans_formats(attention, images, settings: Search) -> None:
    case = Case(attention, images, W4A4 | {"post_gelu": {"format": "adalog"}})
    choice = case.search(settings)
    for key, quantizer in choice.activations.items():
        target = case.plan.format_of_key(key)
        assert type(quantizer.format) is type(target)
        assert quantizer.format.bits == target.bits or settings.schemes
    for name, (scale, zero) in choice.rows.items():
        assert scale.shape == zero.shape == (case.sites[name].y[0].numel(),)
        assert (scale > 0).all()


@pytest.mark.parametrize("name", ["plain", "rounds, activations first", "refined", "schemes"])
@pytest.mark.parametrize("per_head", [False, True], ids=["tensor", "head"])
@pytest.mark.parametrize("graph", ["attention", "vit"])
def test_no_product_is_worse_than_with_the_start(
    graph: str, per_head: bool, name: str, images, request
) -> None:
    content = W4A4 | {"activations": W4A4["activations"] | {"per_head": per_head}}
    case = Case(request.getfixturevalue(graph), images, content)
    choice = case.search(SETTINGS[name])
    start = dict(case.start)
    better = 0
    for site in case.sites.values():
        if not set(case.keys(site)) <= start.keys():
            continue
        before = case.error(site, start, choice)
        after = case.error(site, start | choice.activations, choice)
        # Readers of one tensor share its loss: none here but q, k and v.
        if sum(case.keys(site)[0] in case.keys(other) for other in case.sites.values()) == 1:
            assert after <= before * 1.00001
            better += after < before * 0.99
    assert better >= 2


def test_readers_of_one_tensor_are_searched_together(attention, images) -> None:
    case = Case(attention, images, W4A4)
    choice = case.search(SETTINGS["plain"])
    readers = [s for s in case.sites.values() if case.keys(s) == ("layer_norm_default",)]
    assert len(readers) == 3
    before, after = (
        sum(case.error(s, found, choice) * s.y[0].numel() for s in readers)
        for found in (dict(case.start), dict(case.start) | choice.activations)
    )
    assert after < before


def test_a_tensor_that_several_searches_would_decide_keeps_its_start(vit, images) -> None:
    case = Case(vit, images, W4A4)  # one linear for q, k and v: operands of both matmuls
    matmuls = [s for s in case.sites.values() if isinstance(s, Paired)]
    (q, k), (softmax, v) = (case.keys(s) for s in matmuls)
    assert q == k == v
    choice = case.search(SETTINGS["plain"])
    assert q not in choice.activations
    assert softmax not in choice.activations or softmax != v


def test_formats_that_leave_nothing_open_are_not_searched(attention, images) -> None:
    case = Case(attention, images, W4A4 | {"softmax": {"format": "int16"}})
    choice = case.search(SETTINGS["plain"])
    assert not {"softmax_int", "image", "linear_default_3"} & choice.activations.keys()


def test_the_search_is_deterministic(attention, images) -> None:
    case = Case(attention, images, W4A4)
    first, second = (case.search(SETTINGS["refined"]) for _ in range(2))
    assert first.activations == second.activations
    assert all(torch.equal(first.rows[n].first, second.rows[n].first) for n in first.rows)


def test_importance_moves_the_choice_to_where_it_weighs(attention, images) -> None:
    case = Case(attention, images, W4A4)
    name, site = next((n, s) for n, s in case.sites.items() if n == "linear_default_4")
    important = torch.zeros_like(site.y)
    important[: len(important) // 4] = 1

    def error(choice: Choice) -> float:
        found = dict(case.start) | choice.activations
        part = replace(site, x=site.x[: len(site.x) // 4], y=site.y[: len(site.y) // 4])
        return case.error(part, found, choice)

    weighed = case.search(Search(count=50, rounds=2), {name: important})
    assert error(weighed) < error(case.search(Search(count=50, rounds=2)))
