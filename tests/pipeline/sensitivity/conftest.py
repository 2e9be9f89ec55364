"""The small networks of the quantization tests, and one of them quantized in several ways."""

from dataclasses import dataclass

import numpy as np
import pytest
from torch import fx

from pipeline.quant.quantized import quantize_model
from pipeline.quant.recipe import load_recipe, parse_recipe
from pipeline.quant.reparam.equalize import equalize

from ..quant.conftest import _one_thread, builder, images, vit  # noqa: F401  fixtures

RECIPES = {
    "w8a8": {},
    "w8a8-int8": {},
    "w8a8-adalog": {},
    "w8a8:w4a4": {},
    "equalized": {"equalize": {}},
    "corrected": {"bias_correction": True},
    "twin": {"softmax": {"format": "twin"}, "post_gelu": {"format": "twin"}},
    "per head": {"activations": {"per_head": True, "bits": 4}},
}


@dataclass(frozen=True)
class Network:
    """A float graph, its QDQ graph and photos."""

    floats: fx.GraphModule
    graph: fx.GraphModule
    photos: np.ndarray


@pytest.fixture(params=RECIPES)
def network(request, vit, images) -> Network:  # noqa: F811
    """A transformer block, quantized by each recipe."""
    content = RECIPES[request.param]
    recipe = (
        parse_recipe({"name": "own"} | content, "own") if content else load_recipe(request.param)
    )
    model = quantize_model(vit, images, recipe, {})
    floats = equalize(vit, model.quantization.equalizations)
    return Network(floats, model.graph, np.stack(images[:6]))
