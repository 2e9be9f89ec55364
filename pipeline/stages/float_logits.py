"""Logits of the float model."""

import numpy as np
import torch

from pipeline.stages.float_model import FloatModel
from pipeline.stages.logits import Logits, Pixels, cached_logits
from pipeline.stages.photos import ValidationSet
from pipeline.stages.workspace import Workspace


def float_logits(workspace: Workspace, model: FloatModel, photos: ValidationSet) -> Logits:
    """Logits of the timm model itself, float32 `[photos, classes]`."""
    settings = model.preprocessing
    mean, std = (torch.tensor(value) for value in (settings.mean, settings.std))

    def run(pixels: Pixels) -> Logits:
        with torch.inference_mode():
            images = (torch.from_numpy(pixels) / 255 - mean) / std
            return np.asarray(model.loaded.module(images.permute(0, 3, 1, 2)).numpy())

    return cached_logits(workspace, "float", {"model": model.identity}, photos, lambda: run)
