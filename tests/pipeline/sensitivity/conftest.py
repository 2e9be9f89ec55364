"""The small networks of the quantization tests, and one of them quantized in several ways."""

from dataclasses import dataclass

import numpy as np
import pytest
from torch import fx

from pipeline.quant.calibrate import calibrate
from pipeline.quant.insert import quantize_graph
from pipeline.quant.recipe import load_recipe

from ..quant.conftest import _one_thread, builder, images, vit  # noqa: F401  fixtures

RECIPES = ("w8a8", "w8a8-adalog", "w8a8-int8", "w8a8:w4a4")


@dataclass(frozen=True)
class Network:
    """A float graph, its QDQ graph and photos."""

    floats: fx.GraphModule
    graph: fx.GraphModule
    photos: np.ndarray


@pytest.fixture(params=RECIPES)
def network(request, vit, images) -> Network:  # noqa: F811
    """A transformer block, quantized by each recipe."""
    recipe = load_recipe(request.param)
    graph = quantize_graph(vit, calibrate(vit, images, recipe), recipe)
    return Network(vit, graph, np.stack(images[:6]))
