"""Quantizers from the calibration photos."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.data.photos import Photo
from pipeline.errors import UserError
from pipeline.progress import Step
from pipeline.quant.quantized import QuantizedModel, quantize_model
from pipeline.quant.recipe import Recipe
from pipeline.quant.storage import load_quantized, read_model_identity, save_quantized
from pipeline.quant.summary import summarize
from pipeline.stages.float_model import FloatModel
from pipeline.stages.sources import code_version
from pipeline.stages.workspace import Workspace

FORMATS = "formats.json"
SECONDS = "seconds.json"


def quantize_stage(
    workspace: Workspace, model: FloatModel, recipe: Recipe, photos: Sequence[Photo]
) -> Path:
    """Folder with the quantized model, as `load_quantized` reads it, its formats by role, and the
    seconds that it took.

    What a recipe trains is kept piece by piece, so that an interrupted run goes on at its piece.

    Raises:
        UserError: see `quantize_model`.
    """

    def produce(folder: Path, step: Step) -> None:
        graph = model.graph
        start = time.monotonic()
        quantized = quantize_model(
            graph,
            (photo.pixels for photo in photos),
            recipe,
            model.identity,
            lambda done, total: step.advance(done),
            workspace.folder / f"work-{code_version('quantize')[:20]}",
            workspace.reporter,
        )
        (folder / SECONDS).write_text(json.dumps(time.monotonic() - start))
        save_quantized(quantized, folder)
        formats = [asdict(line) for line in summarize(quantized.graph, quantized.quantization.bits)]
        (folder / FORMATS).write_text(json.dumps(formats, indent=1) + "\n", encoding="utf-8")

    return workspace.stage(
        "quantize",
        {
            "model": model.identity,
            "recipe": recipe.model_dump(),
            "photos": [photo.sha256 for photo in photos],
        },
        produce,
        total=recipe.calibration_images,
    )


def open_quantized(folder: Path, model: FloatModel) -> QuantizedModel:
    """Read a quantized model.

    Raises:
        UserError: it belongs to another float model, or is damaged.
    """
    if read_model_identity(folder) != model.identity:
        raise UserError(
            f"{folder} was quantized from other weights or settings than those of "
            f"{model.spec.checkpoint or model.spec.name}; give the right checkpoint or quantize "
            "again."
        )
    return load_quantized(folder, model.graph)


def read_formats(folder: Path) -> list[dict[str, Any]]:
    """Formats by role: a list of role, format and number of tensors.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / FORMATS
    try:
        formats: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged; quantize the model again.") from error
    return formats


def read_seconds(folder: Path) -> float:
    """Wall time of the quantization itself, when it was done; it may have been another day."""
    return float(json.loads((folder / SECONDS).read_text(encoding="utf-8")))
