"""Factors around an 8-bit residual stream: exact, best for every channel, kept by storage."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx

from pipeline.quant.images import as_input
from pipeline.quant.plan import make_plan
from pipeline.quant.quantized import quantize_model
from pipeline.quant.quantizers.uniform import UniformQuantizer
from pipeline.quant.recipe import Recipe, parse_recipe
from pipeline.quant.reparam.power_of_two import choose_exponents, scale_stream
from pipeline.quant.roles import Role, resolve_roles
from pipeline.quant.storage import load_quantized, save_quantized

Images = list[np.ndarray[Any, Any]]


def _recipe(**content: Any) -> Recipe:
    wide = {"residual_bits": 8, "residual": {"power_of_two": True}}
    return parse_recipe({"name": "x", "calibration_images": 4, **wide, **content}, "x")


def _spread_channels(vit: fx.GraphModule) -> fx.GraphModule:
    """The stream's channels at very different scales: by the position embedding."""
    add = next(n for n in vit.graph.nodes if n.meta.get("module_path") == "pos_embed")
    embedding = getattr(vit, add.args[1].target)
    embedding.mul_(torch.logspace(-2, 1.5, 8))
    return vit


def test_the_network_computes_the_same(vit: fx.GraphModule, images: Images) -> None:
    graph = _spread_channels(vit)
    exponents = choose_exponents(graph, make_plan(graph.graph, _recipe()), images[:4])
    assert {len(found) for found in exponents.values()} == {8}
    scaled = scale_stream(graph, exponents)
    image = as_input(images[9], graph)
    assert torch.equal(scaled(image), graph(image))


def test_small_channels_get_small_exponents(vit: fx.GraphModule, images: Images) -> None:
    graph = _spread_channels(vit)
    exponents = choose_exponents(graph, make_plan(graph.graph, _recipe()), images[:4])
    first = next(iter(exponents.values()))
    assert min(first) == 0 and first[-1] == 3


def test_only_what_lies_between_the_factors_has_8_bits(vit: fx.GraphModule, images: Images) -> None:
    recipe = _recipe()
    exponents = choose_exponents(vit, make_plan(vit.graph, recipe), images[:4])
    scaled = scale_stream(vit, exponents)
    roles = resolve_roles(scaled.graph).tensors
    before = resolve_roles(vit.graph).tensors
    plan = make_plan(scaled.graph, recipe)
    streams = [name for name, role in roles.items() if role is Role.STREAM]
    stored = [name for name in roles.keys() - before.keys() if roles[name] is Role.RESIDUAL]
    assert len(stored) == len(exponents)
    assert len(streams) == 2 * len(exponents)
    assert {str(plan.formats[name]) for name in streams} == {"int16"}
    assert {str(plan.formats[name]) for name in stored} == {"int8"}
    others = before.keys() - exponents.keys()
    assert {name: roles[name] for name in others} == {name: before[name] for name in others}


def test_error_of_the_stored_stream_falls(vit: fx.GraphModule, images: Images) -> None:
    graph = _spread_channels(vit)
    errors = []
    for power in (False, True):
        recipe = _recipe(residual={"power_of_two": power})
        quantized = quantize_model(graph, images[:4], recipe, {})
        wanted, got = (g(as_input(images[9], graph)) for g in (graph, quantized.graph))
        errors.append(float((got - wanted).square().sum()))
    assert errors[1] < 0.7 * errors[0]


def test_storage_keeps_them(vit: fx.GraphModule, images: Images, tmp_path: Path) -> None:
    quantized = quantize_model(vit, images[:4], _recipe(), {"name": "toy"})
    assert quantized.quantization.exponents
    save_quantized(quantized, tmp_path)
    loaded = load_quantized(tmp_path, vit)
    assert loaded.quantization.exponents == quantized.quantization.exponents
    image = as_input(images[9], vit)
    assert torch.equal(loaded.graph(image), quantized.graph(image))


def test_a_constant_stream_is_no_obstacle(vit: fx.GraphModule, images: Images) -> None:
    for _, tensor in vit.named_buffers():
        tensor.zero_()
    quantized = quantize_model(vit, images[:4], _recipe(), {})
    assert torch.isfinite(quantized.graph(as_input(images[0], vit))).all()
    for quantizer in quantized.quantization.activations.values():
        assert not isinstance(quantizer, UniformQuantizer) or min(quantizer.scale) > 0
