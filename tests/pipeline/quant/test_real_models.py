"""Quality on trained networks and photos (only where POCKETVIT_DATA says where they are)."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.canonical import canonicalize
from pipeline.data.photos import list_photos
from pipeline.data.preprocess import to_pixels
from pipeline.models import ModelSpec, load_model
from pipeline.quant.evaluate import sqnr_db
from pipeline.quant.quantized import quantize_model
from pipeline.quant.recipe import load_recipe
from pipeline.quant.simulate import simulate

CASES = {
    "deit_tiny": (
        ModelSpec(
            "deit_tiny_patch16_224",
            checkpoint=Path("deit_tiny_patch16_224.safetensors"),
            crop_pct=0.875,
        ),
        "imagenet_like",
        18.0,
    ),
    "mobilevit_xxs": (
        ModelSpec(
            "mobilevit_xxs",
            checkpoint=Path("mobilevit_xxs_imagenette_128.safetensors"),
            input_size=128,
            crop_pct=1.0,
        ),
        "imagenette/validation",
        24.0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_w8a8_keeps_the_logits(case: str) -> None:
    data = os.environ.get("POCKETVIT_DATA")
    if data is None:
        pytest.skip("POCKETVIT_DATA is unset: no trained networks and photos")
    spec, folder, least = CASES[case]
    spec = ModelSpec(**vars(spec) | {"checkpoint": Path(data) / spec.checkpoint})
    loaded = load_model(spec)
    photos: list[np.ndarray[Any, Any]] = [
        to_pixels(Image.open(path).convert("RGB"), loaded.preprocessing)
        for path in list_photos(Path(data) / folder)[::37][:16]
    ]
    graph = canonicalize(loaded)
    recipe = load_recipe("w8a8").model_copy(update={"calibration_images": 8})
    quantized = quantize_model(graph, photos[:8], recipe, {})
    reference = simulate(graph, photos[8:])
    assert sqnr_db(reference, simulate(quantized.graph, photos[8:])) > least
