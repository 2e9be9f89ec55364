"""A quantized model as one value: the QDQ graph with all that is needed to make it again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx

from pipeline.quant.calibrate import Progress, calibrate
from pipeline.quant.calibration import Calibration
from pipeline.quant.insert import quantize_graph
from pipeline.quant.recipe import Recipe


@dataclass(frozen=True)
class QuantizedModel:
    """A QDQ graph and its provenance.

    Attributes:
        graph: the QDQ graph; running it in torch is the simulation.
        recipe: bits and formats.
        calibration: parameters of the activations.
        model: what identifies the float model, as plain JSON data.
    """

    graph: fx.GraphModule
    recipe: Recipe
    calibration: Calibration
    model: Mapping[str, Any]


def quantize_model(
    graph: fx.GraphModule,
    images: Iterable[np.ndarray[Any, Any]],
    recipe: Recipe,
    model: Mapping[str, Any],
    progress: Progress | None = None,
) -> QuantizedModel:
    """Calibrate a canonical float graph and insert its quantizers.

    Args:
        graph: canonical float graph.
        images: uint8 `[H, W, 3]` calibration photos, already resized.
        recipe: bits and formats.
        model: what identifies the float model, as plain JSON data.
        progress: called after every photo.

    Raises:
        UserError: see `calibrate`.
    """
    calibration = calibrate(graph, images, recipe, progress)
    return QuantizedModel(quantize_graph(graph, calibration, recipe), recipe, calibration, model)
