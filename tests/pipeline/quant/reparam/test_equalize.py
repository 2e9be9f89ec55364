"""Equalization is exact: the graph computes what it did, and roles and formats see through it."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx

from pipeline.quant import walk
from pipeline.quant.channels import channels_of
from pipeline.quant.plan import make_plan
from pipeline.quant.recipe import load_recipe
from pipeline.quant.reparam.equalize import Equalization, equalize
from pipeline.quant.roles import Role, resolve_roles
from pipeline.quant.simulate import simulate
from tests.pipeline.quant.conftest import Builder

aten = torch.ops.aten
IMAGES = list(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8))


def factors(graph: fx.GraphModule, seed: int = 0, shift: bool = True) -> list[Equalization]:
    """Random factors for every tensor that can have them; shifts where nothing pads."""
    random = np.random.default_rng(seed)
    found = []
    for node in graph.graph.nodes:
        if node.op == "call_function" and (channels := channels_of(node)) is not None:
            factor = tuple(np.exp2(random.uniform(-4, 4, channels.count)).tolist())
            moved = tuple(random.normal(size=channels.count).tolist())
            can_shift = shift and channels.can_shift
            found.append(Equalization(node.name, factor, moved if can_shift else ()))
    return found


def assert_equal(graph: fx.GraphModule, changed: fx.GraphModule) -> None:
    expected, found = simulate(graph, IMAGES), simulate(changed, IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@st.composite
def graphs(draw: st.DrawFn) -> fx.GraphModule:
    """Random chains of convolutions, normalizations, activations and residual sums."""
    b = Builder(seed=draw(st.integers(0, 100)))
    x = b.stem(8)
    for _ in range(draw(st.integers(1, 4))):
        match draw(st.sampled_from(["pointwise", "padded", "grouped", "curve", "residual"])):
            case "pointwise":
                x = b.conv(x, 8)
            case "padded":
                x = b.conv(x, 8, kernel=3, padding=1)
            case "grouped":
                weight = b.random_constant(8, 2, 3, 3, std=0.3)
                x = b.call(aten.conv2d.default, x, weight, None, [1, 1], [1, 1], [1, 1], 4)
            case "curve":
                x = b.call(aten.silu.default, x)
            case "residual":
                x = b.call(aten.add.Tensor, x, b.conv(b.call(aten.relu.default, x), 8))
    tokens = b.tokens(x)
    for _ in range(draw(st.integers(0, 2))):
        normed = b.norm(tokens)
        if draw(st.booleans()):
            hidden = b.call(aten.gelu.default, b.linear(normed, 12))
            tokens = b.call(aten.add.Tensor, tokens, b.linear(hidden, 8))
        else:
            tokens = b.call(aten.add.Tensor, tokens, b.attention(normed))
    return b.head(tokens)


@given(graphs(), st.integers(0, 100))
@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
def test_any_graph_computes_the_same(graph: fx.GraphModule, seed: int) -> None:
    found = factors(graph, seed)
    assert found
    assert_equal(graph, equalize(graph, found))


def test_the_graph_itself_is_left_alone(vit) -> None:
    before = str(vit.graph), simulate(vit, IMAGES)
    equalize(vit, factors(vit))
    assert (str(vit.graph), simulate(vit, IMAGES).tolist()) == (before[0], before[1].tolist())


def test_what_products_read_is_divided(vit) -> None:
    one = next(one for one in factors(vit) if one.tensor.startswith("layer_norm"))
    changed = equalize(vit, [one])
    plain, scaled = (_values(g) for g in (vit, changed))
    tensor = next(n for n in scaled if n.name == one.tensor)
    product = next(r for r in walk.consumers(tensor) if r.target in walk.GEMMS)
    found = scaled[walk.input_of(product)]
    before = next(v for n, v in plain.items() if n.name == one.tensor)
    expected = (before + torch.tensor(one.shift)) / torch.tensor(one.factor)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def _values(graph: fx.GraphModule) -> dict[fx.Node, Any]:
    interpreter = fx.Interpreter(graph, garbage_collect_values=False)
    interpreter.run(torch.from_numpy(IMAGES[0]).float().unsqueeze(0))
    return dict(interpreter.env)


def test_a_view_that_products_share_with_others_is_read_twice(builder) -> None:
    x = builder.call(aten.relu.default, builder.stem())
    tokens = builder.tokens(x)  # read by a linear and by a sum
    total = builder.call(aten.add.Tensor, builder.linear(tokens, 8), tokens)
    graph = builder.head(total)
    found = [one for one in factors(graph) if one.tensor == x.name]
    assert found
    assert_equal(graph, equalize(graph, found))


def test_roles_and_formats_are_those_of_before(vit) -> None:
    recipe = load_recipe("w8a8")
    found = [one for one in factors(vit) if one.tensor.startswith("layer_norm")]
    changed = equalize(vit, found)
    before, after = resolve_roles(vit.graph), resolve_roles(changed.graph)
    for one in found:
        node = next(n for n in changed.graph.nodes if n.name == one.tensor)
        (scaled,) = node.users
        (shifted,) = scaled.users
        # The tensor is stored behind factor and shift, in the role that it had.
        assert after.tensors[one.tensor] is Role.FUSED is after.tensors[scaled.name]
        assert after.tensors[shifted.name] is before.tensors[one.tensor]
    factor_nodes = {n.name for n in changed.graph.nodes if walk.is_channel_factor(n)}
    others = [n for n in before.tensors if n not in {one.tensor for one in found}]
    assert all(after.tensors[n] is before.tensors[n] for n in others)
    plan = make_plan(changed.graph, recipe)
    stored = {n for n in plan.formats if n in factor_nodes}
    assert len(stored) == len(found)


def test_a_wide_tensor_keeps_its_format_and_products_read_a_copy_behind_the_factors(
    builder,
) -> None:
    x = builder.tokens(builder.stem())
    x = builder.call(aten.add.Tensor, x, builder.linear(x, 8), path="sum")
    x = builder.call(aten.add.Tensor, x, builder.linear(x, 8), path="last")
    graph = builder.head(x)
    node = next(n for n in graph.graph.nodes if n.meta.get("module_path") == "sum")
    changed = equalize(graph, [Equalization(node.name, (2.0, 0.5) * 4)])
    assert_equal(graph, changed)
    before, after = (make_plan(g.graph, load_recipe("w8a8")) for g in (graph, changed))
    assert after.formats[node.name] == before.formats[node.name]
    (factor,) = (n for n in changed.graph.nodes if walk.is_channel_factor(n))
    assert after.roles.tensors[factor.name] is Role.GEMM_IN


def test_tensors_without_channels_are_refused(vit) -> None:
    with pytest.raises(KeyError, match="softmax_int"):
        equalize(vit, [Equalization("softmax_int", (1.0,) * 64)])
    with pytest.raises(KeyError, match="nothing"):
        equalize(vit, [Equalization("nothing", (1.0,))])
