"""What bundled recipes make of a network becomes integers that follow the simulation."""

from typing import Any

import numpy as np
import pytest
from torch import fx

from pipeline.frontend.importer import import_quantized
from pipeline.quant.evaluate import sqnr_db
from pipeline.quant.quantized import quantize_model
from pipeline.quant.recipe import load_recipe, recipe_names
from pipeline.quant.simulate import simulate
from tvm_passes.interpret import interpret
from tvm_passes.lowering.io import logits_scale
from tvm_passes.pipeline import lower

from .test_bad_input import at_bits

NAMES = [name for name in recipe_names() if not load_recipe(name).paper]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", NAMES)
def test_integers_follow_the_simulation(
    name: str, bits: int, vit: fx.GraphModule, images: list[np.ndarray[Any, Any]]
) -> None:
    quantized = quantize_model(vit, images[:2], at_bits(name, bits, 2), {})
    module = lower(import_quantized(quantized.graph))
    got = np.concatenate([interpret(module, image[None]) for image in images[2:5]])
    assert sqnr_db(simulate(quantized.graph, images[2:5]), got * logits_scale(module)) > 12
