"""Logits of the simulation."""

from pathlib import Path

from pydantic import JsonValue

from pipeline.files.hashing import sha256_file
from pipeline.quant.simulate import simulate
from pipeline.quant.storage import DESCRIPTION
from pipeline.stages.float_model import FloatModel
from pipeline.stages.logits import Logits, Network, cached_logits
from pipeline.stages.photos import ValidationSet
from pipeline.stages.quantize import open_quantized
from pipeline.stages.workspace import Workspace


def simulated_logits(
    workspace: Workspace, model: FloatModel, quantized: Path, photos: ValidationSet
) -> Logits:
    """Logits of the quantized graph run in torch, float32 `[photos, classes]`."""

    def network() -> Network:
        graph = open_quantized(quantized, model).graph
        return lambda pixels: simulate(graph, pixels)

    inputs: JsonValue = {"quantized": sha256_file(quantized / DESCRIPTION)}
    return cached_logits(workspace, "simulated", inputs, photos, network)
