"""Formats as published: what they compute, and that whole networks can be simulated with them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from pipeline.quant.images import as_input
from pipeline.quant.quantized import quantize_model
from pipeline.quant.quantizers import from_json, to_json
from pipeline.quant.quantizers.logarithmic import Logarithmic, LogarithmicQuantizer
from pipeline.quant.quantizers.twin import Twin, TwinQuantizer
from pipeline.quant.recipe import parse_recipe


def test_a_published_logarithm_has_one_value_more() -> None:
    x = torch.exp2(-torch.linspace(0, 12, 500))
    values = {}
    for published in (False, True):
        form = Logarithmic(3, 1, 1, fixed_scale=1.0, published=published)
        values[published] = set(LogarithmicQuantizer(form, 1.0, 1).fake(x).tolist())
    assert values[True] == {0.0} | {2.0**-k for k in range(8)}
    assert values[True] - values[False] == {2.0**-7}


def test_published_twin_codes_add_both_branches() -> None:
    """The example of the specification: theta = 1/128, 0.001 becomes 0.0089."""
    fine = 2.0**-7 / 127
    ours, published = (
        TwinQuantizer(Twin(8, signed=False, published=p), fine, 7) for p in (False, True)
    )
    x = torch.tensor([0.001, 0.5])
    assert ours.fake(x).tolist() == pytest.approx([0.001, 0.5], abs=0.004)
    assert published.fake(x).tolist() == pytest.approx([0.0089, 0.5 + 2.0**-7], abs=0.004)
    assert published.fake(x)[0] == pytest.approx(0.0089, abs=1e-4)


@pytest.mark.parametrize("softmax", ["log2", "twin", "adalog"])
def test_simulation(vit: fx.GraphModule, images: list[np.ndarray[Any, Any]], softmax: str) -> None:
    content = {
        "name": "x",
        "paper": True,
        "calibration_images": 4,
        "softmax": {"format": softmax, "bits": 4},
        "activations": {"per_head": True, "bits": 6},
    }
    quantized = quantize_model(vit, images[:4], parse_recipe(content, "x"), {})
    image = as_input(images[5], vit)
    error = (quantized.graph(image) - vit(image)).norm() / vit(image).norm()
    assert error < 0.3
    for quantizer in quantized.quantization.activations.values():
        assert from_json(to_json(quantizer)) == quantizer
