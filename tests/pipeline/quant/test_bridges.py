"""Bridges: where maps become tokens and back, and the search that sees their prefix."""

from typing import Any

import numpy as np
import torch
from torch import fx

from pipeline.quant.bridges import find_bridges
from pipeline.quant.plan import make_plan
from pipeline.quant.quantized import find_quantization
from pipeline.quant.recipe import Recipe, parse_recipe

from .conftest import Builder

aten = torch.ops.aten


def _recipe(order: str, bits: int = 4) -> Recipe:
    content = {
        "name": "x",
        "calibration_images": 4,
        "weights": {"bits": bits},
        "activations": {"bits": bits},
        "search": {"order": order, "count": 20},
    }
    return parse_recipe(content, "x")


def _hybrid(b: Builder) -> fx.GraphModule:
    """Convolutions, a transformer block on their pixels, convolutions again, a head."""
    maps = b.call(aten.silu.default, b.stem())
    x = b.tokens(b.conv(maps, 8, path="in"))
    x = b.call(aten.add.Tensor, x, b.attention(b.norm(x)))
    hidden = b.call(aten.gelu.default, b.linear(b.norm(x), 16, path="fc1"))
    x = b.norm(b.call(aten.add.Tensor, x, b.linear(hidden, 8, path="fc2")))
    back = b.call(aten.permute.default, x, [0, 2, 1])
    back = b.call(aten.reshape.default, back, [1, 8, 8, 8])
    maps = b.call(aten.silu.default, b.conv(back, 8, path="out"))
    pooled = b.call(aten.mean.dim, maps, [2, 3], False)
    return b.finish(b.linear(pooled, 5, path="head"))


def _paths(graph: fx.GraphModule) -> list[list[str]]:
    plan = make_plan(graph.graph, _recipe("bridges"))
    return [[n.meta["module_path"] for n in b] for b in find_bridges(graph.graph, plan)]


def test_bridges_are_found_by_structure(builder: Builder) -> None:
    assert _paths(_hybrid(builder)) == [["in", "attn.qkv"], ["fc2", "out"]]


def test_a_plain_transformer_has_that_of_its_stem_only(vit: fx.GraphModule) -> None:
    assert _paths(vit) == [["stem", "attn.qkv"]]


def test_only_bridges_differ_from_the_parallel_search(
    builder: Builder, images: list[np.ndarray[Any, Any]]
) -> None:
    graph = _hybrid(builder)
    _, parallel = find_quantization(graph, images[:4], _recipe("parallel"))
    _, found = find_quantization(graph, images[:4], _recipe("bridges"))
    path = {n.name: n.meta.get("module_path") for n in graph.graph.nodes}
    changed = {
        path[name]
        for name, weight in found.weights.items()
        if not torch.equal(weight.scale, parallel.weights[name].scale)
    }
    assert changed and changed <= {"attn.qkv", "out"}
    keys = {k for k, q in found.activations.items() if q != parallel.activations[k]}
    assert {path[key.split(":")[0]] for key in keys} <= {
        path[n.args[0].name] for n in graph.graph.nodes if path[n.name] == "attn.qkv"
    } | {path[n.name] for n in graph.graph.nodes if n.target is aten.layer_norm.default}
