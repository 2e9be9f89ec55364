"""Which tensors are equalized, and that their channels then have comparable ranges."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.images import as_input
from pipeline.quant.plan import make_plan
from pipeline.quant.recipe import Equalize, Factors, parse_recipe
from pipeline.quant.reparam.choose import channel_statistics, choose_equalizations, equalizable
from pipeline.quant.reparam.equalize import Equalization, equalize
from pipeline.quant.sites import Sampling, collect_sites
from tests.pipeline.quant.conftest import Builder

aten = torch.ops.aten

RECIPE = parse_recipe({"name": "w4a4", "weights": {"bits": 4}, "activations": {"bits": 4}}, "test")


def choose(graph: fx.GraphModule, images: Any, **settings: Any) -> list[Equalization]:
    plan = make_plan(graph.graph, RECIPE)
    sites = collect_sites(graph, images[:4], Sampling())
    return choose_equalizations(graph, plan, RECIPE, Equalize(**settings), images[:4], sites)


def uneven(builder: Builder, reader: str = "linear") -> fx.GraphModule:
    """A normalization whose channels have very different ranges, and what reads it."""
    x = builder.stem()
    outliers = torch.zeros(1, 8, 8, 8)
    outliers[:, 3] = 60 * torch.tensor([1.0, -1.0]).repeat(4)
    x = builder.call(aten.add.Tensor, x, builder.constant(outliers))
    if reader == "linear":
        normed = builder.norm(builder.tokens(x))
        return builder.head(builder.linear(normed, 8))
    normed = builder.call(aten.group_norm.default, x, 1, None, None, 1e-5)
    return builder.head(builder.tokens(builder.conv(normed, 8, kernel=3, padding=1)))


def rows_of(graph: fx.GraphModule, node: fx.Node, axis: int, images: Any) -> Tensor:
    """Values `[C, n]` of one tensor over all photos."""
    rows = []
    for image in images:
        interpreter = fx.Interpreter(graph, garbage_collect_values=False)
        interpreter.run(as_input(image, graph))
        rows.append(interpreter.env[node].movedim(axis, 0).flatten(1))
    return torch.cat(rows, dim=1).double()


def test_what_talking_heads_read_is_left_alone(builder) -> None:
    heads = builder.call(aten.reshape.default, builder.tokens(builder.stem()), [1, 2, 16, 16])
    logits = builder.call(aten.matmul.default, heads, heads)
    weights = builder.call(aten.softmax.int, builder.conv(logits, 2, path="before"), -1)
    values = builder.call(aten.matmul.default, builder.conv(weights, 2, path="after"), heads)
    model = builder.head(builder.call(aten.reshape.default, values, [1, 64, 8]))
    plan = make_plan(model.graph, RECIPE)
    assert len(plan.roles.heads_mixers) == 2
    found = {c.node.name for c in equalizable(model.graph, plan, Equalize(tensors="all"))}
    assert not found & {logits.name, weights.name}


def test_norms_alone_or_all_that_the_compiler_can_scale(vit) -> None:
    plan = make_plan(vit.graph, RECIPE)
    norms = equalizable(vit.graph, plan, Equalize(tensors="norms"))
    assert norms and all(c.node.target in walk.NORMS for c in norms)
    found = {c.node.name for c in equalizable(vit.graph, plan, Equalize(tensors="all"))}
    assert {c.node.name for c in norms} < found
    assert "gelu_default" in found
    assert not found & {"matmul_default_1", "softmax_int", "image"}


@pytest.mark.parametrize("statistic", ["range", "deviation"])
def test_statistics_are_those_of_all_values_at_once(vit, images, statistic: str) -> None:
    plan = make_plan(vit.graph, RECIPE)
    tensors = equalizable(vit.graph, plan, Equalize(tensors="all"))
    found = channel_statistics(vit, images[:3], tensors)
    for channels in tensors:
        rows = rows_of(vit, channels.node, channels.axis, images[:3])
        low, high = rows.amin(1), rows.amax(1)
        own = found[channels.node.name].spread(statistic, about_zero=False)
        zero = found[channels.node.name].spread(statistic, about_zero=True)
        if statistic == "range":
            torch.testing.assert_close(own.centre, (low + high) / 2)
            torch.testing.assert_close(own.width, high - low)
            torch.testing.assert_close(zero.width, high.clamp(min=0) - low.clamp(max=0))
        else:
            torch.testing.assert_close(own.centre, rows.mean(1))
            torch.testing.assert_close(own.width, rows.std(1, correction=0))
            torch.testing.assert_close(zero.width, rows.square().mean(1).sqrt())


@pytest.mark.parametrize("statistic", ["range", "deviation"])
def test_full_equalization_gives_every_channel_the_same_spread(
    builder, images, statistic: str
) -> None:
    graph = uneven(builder)
    found = choose(graph, images, statistics=(statistic,))
    assert found
    changed = equalize(graph, found)
    for one in found:
        (factor,) = next(n for n in changed.graph.nodes if n.name == one.tensor).users
        (shifted,) = factor.users
        rows = rows_of(changed, shifted, 2, images[:4])
        low, high = rows.amin(1), rows.amax(1)
        width, centre = (
            (high - low, (low + high) / 2)
            if statistic == "range"
            else (rows.std(1, correction=0), rows.mean(1))
        )
        for value in (width, centre):
            torch.testing.assert_close(value, value.mean().expand_as(value), rtol=1e-3, atol=1e-3)


def test_half_way_lies_between(builder, images) -> None:
    (full, *_), (half, *_) = (
        choose(uneven(Builder(seed=1)), images, exponents=(e,), shift=False) for e in (1.0, 0.5)
    )
    np.testing.assert_allclose(np.square(half.factor), full.factor, rtol=1e-5)
    assert not full.shift


def test_the_error_decides_between_exponents(builder, images) -> None:
    graph = uneven(builder)
    tensor = next(n for n in graph.graph.nodes if n.target in walk.NORMS)
    # As long as the outliers rule the outputs, equal ranges would blur them.
    found = {one.tensor for one in choose(graph, images, exponents=(0.0, 1.0))}
    assert tensor.name not in found
    (linear,) = tensor.users
    getattr(graph, linear.args[1].target)[:, 3] *= 0.02
    equalized = {one.tensor: one for one in choose(graph, images, exponents=(0.0, 1.0))}
    factor = equalized[tensor.name].factor
    assert factor.index(max(factor)) == 3 and max(factor) > 5 * min(factor)


def test_the_exponent_0_changes_nothing(builder, images) -> None:
    assert choose(uneven(builder), images, exponents=(0.0,)) == []


def test_tensors_that_no_norm_gives_may_have_factors_of_their_own(vit, images) -> None:
    still = {"exponents": (0.0,), "shift": False}
    others = Factors(statistics=("deviation",))
    found = {one.tensor: one for one in choose(vit, images, tensors="all", others=others, **still)}
    plan = make_plan(vit.graph, RECIPE)
    norms = {c.node.name for c in equalizable(vit.graph, plan, Equalize(tensors="norms"))}
    everywhere = choose(vit, images, tensors="all", statistics=("deviation",), shift=False)
    assert found and found == {o.tensor: o for o in everywhere if o.tensor not in norms}


def test_what_is_padded_is_scaled_but_not_shifted(builder, images) -> None:
    graph = uneven(builder, "convolution")
    (one, *_) = choose(graph, images)
    assert one.tensor == "group_norm_default" and one.shift == ()
    expected, found = (g(as_input(images[0], graph)) for g in (graph, equalize(graph, [one])))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_channels_have_bounded_factors(builder, images, value: float) -> None:
    x = builder.call(aten.relu.default, builder.stem())
    mask = torch.ones(1, 8, 1, 1)
    mask[:, 2] = 0
    x = builder.call(aten.mul.Tensor, x, builder.constant(mask))
    x = builder.call(aten.add.Tensor, x, builder.constant((1 - mask) * value))
    x = builder.call(aten.silu.default, x)
    graph = builder.head(builder.tokens(builder.conv(x, 8)))
    for one in choose(graph, images, tensors="all"):
        assert all(2.0**-11 < f < 2.0**11 for f in one.factor)
