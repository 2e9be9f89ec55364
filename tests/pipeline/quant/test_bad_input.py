"""Every bundled recipe on input that is hard: NaN, nothing but constants, a single photo."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from pipeline.errors import UserError
from pipeline.quant.images import as_input
from pipeline.quant.quantized import quantize_model
from pipeline.quant.recipe import Recipe, load_recipe, parse_recipe, recipe_names

Images = list[np.ndarray[Any, Any]]
QUICK = {"count": 16, "rounds": 1, "refine": 2, "keep": 4, "importance": "none"}


def at_bits(name: str, bits: int, images: int) -> Recipe:
    """A bundled recipe with a small budget, and without training."""
    content = load_recipe(f"{name}:w{bits}a{bits}").model_dump()
    content |= {"reconstruct": None, "mlp": None, "mixed": None}
    content["calibration_images"] = images
    if content["search"]:
        content["search"] |= QUICK
    if content["equalize"] and content["equalize"]["learn"]:
        content["equalize"]["learn"] = 5
    return parse_recipe(content, name)


def _error(graph: fx.GraphModule, recipe: Recipe, images: Images, count: int) -> float:
    quantized = quantize_model(graph, images[:count], recipe, {})
    image = as_input(images[20], graph)
    wanted, got = graph(image), quantized.graph(image)
    return float((got - wanted).norm() / wanted.norm().clamp(min=1e-9))


@pytest.mark.parametrize("name", recipe_names())
def test_a_single_photo_is_enough(name: str, vit: fx.GraphModule, images: Images) -> None:
    assert _error(vit, at_bits(name, 8, 1), images, 1) < 0.3


@pytest.mark.parametrize("name", recipe_names())
def test_constant_activations(name: str, vit: fx.GraphModule, images: Images) -> None:
    """All weights zero, biases too: every tensor behind the image is constant."""
    for _, tensor in vit.named_buffers():
        tensor.zero_()
    assert _error(vit, at_bits(name, 4, 2), images, 2) < 1e-3


@pytest.mark.parametrize("name", recipe_names())
def test_nan_is_named_where_it_appears(name: str, vit: fx.GraphModule, images: Images) -> None:
    product = next(n for n in vit.graph.nodes if n.meta.get("module_path") == "mlp.fc1")
    getattr(vit, product.args[1].target)[0, 0] = torch.nan
    with pytest.raises(UserError, match=r"NaN or infinity at mlp\.fc1"):
        quantize_model(vit, images[:2], at_bits(name, 8, 2), {})


@pytest.mark.parametrize("name", recipe_names())
def test_too_few_photos(name: str, vit: fx.GraphModule, images: Images) -> None:
    with pytest.raises(UserError, match="needs 3 photos but there are only 2"):
        quantize_model(vit, images[:2], at_bits(name, 8, 3), {})
