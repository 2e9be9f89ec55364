"""From a cell to its result, by the stages that deploy uses too."""

import hashlib
import math

import numpy as np

from pipeline.compare.cell import Cell, CellResult, Figures
from pipeline.compare.paired import noise_energy, top1_difference
from pipeline.quant.evaluate import agreement, sqnr_db, top1
from pipeline.quant.lowerable import check_lowerable
from pipeline.quant.recipe import load_recipe
from pipeline.stages.build import build_stage
from pipeline.stages.float_logits import float_logits
from pipeline.stages.float_model import FloatModel
from pipeline.stages.integer_logits import integer_logits
from pipeline.stages.integer_module import read_module
from pipeline.stages.logits import Logits
from pipeline.stages.lower import lower_stage
from pipeline.stages.photos import ValidationSet, draw_calibration, scan_validation
from pipeline.stages.quantize import quantize_stage, read_seconds
from pipeline.stages.simulated_logits import simulated_logits
from pipeline.stages.workspace import Workspace
from tvm_passes.aot import resolve_target
from tvm_passes.lowering.io import logits_scale


def run_cell(cell: Cell, workspace: Workspace) -> CellResult:
    """Quantize a model and evaluate it; whatever goes wrong is part of the result.

    Args:
        cell: what to do.
        workspace: caches the stages.
    """
    try:
        return CellResult.of(cell, _figures(cell, workspace))
    except Exception as error:  # one cell must not stop the others
        return CellResult.failed(cell, sentence(error))


def sentence(error: Exception) -> str:
    """An error in one line: its first one, with its kind where it was not meant for users."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else "no further words"
    if type(error).__name__ in ("UserError", "LoweringError"):
        return first
    return f"{type(error).__name__}: {first}"


def _figures(cell: Cell, workspace: Workspace) -> Figures:
    subject = cell.subject
    recipe = load_recipe(cell.recipe_name)
    if cell.level == "integer":
        check_lowerable(recipe)
    model = FloatModel(subject.spec, workspace.reporter)
    photos = scan_validation(
        workspace,
        subject.validation,
        model.loaded.num_classes,
        model.preprocessing,
        subject.labels_file,
        subject.limit,
        subject.calibration,
    )
    drawn = draw_calibration(
        workspace,
        subject.calibration,
        recipe.calibration_images,
        cell.seed,
        model.preprocessing,
        recipe.most_images,
    )
    quantized = quantize_stage(workspace, model, recipe, drawn)
    if cell.level == "integer":
        module = lower_stage(workspace, model, quantized)
        library = build_stage(workspace, subject.spec.name, module, resolve_target("host"))
        codes = integer_logits(workspace, library.path, model.loaded.num_classes, photos)
        logits = codes * logits_scale(read_module(module))
    else:
        logits = simulated_logits(workspace, model, quantized, photos)
    reference = float_logits(workspace, model, photos)
    return _compare(reference, logits, photos, len(drawn), read_seconds(quantized))


def _compare(
    reference: Logits, logits: Logits, photos: ValidationSet, drawn: int, seconds: float
) -> Figures:
    labels, predictions = photos.labels, logits.argmax(axis=1)
    difference = top1_difference(predictions == labels, reference.argmax(axis=1) == labels)
    return Figures(
        photos=len(labels),
        photos_sha256=_digest(photos),
        calibration_photos=drawn,
        quantize_seconds=seconds,
        float_top1=top1(reference, labels),
        top1=top1(logits, labels),
        top1_difference=difference.value,
        top1_low=_finite(difference.low),
        top1_high=_finite(difference.high),
        agreement=agreement(reference, logits),
        sqnr_db=_finite(sqnr_db(reference, logits)),
        labels=tuple(labels.tolist()),
        predictions=tuple(predictions.tolist()),
        noise=tuple(np.asarray(noise_energy(reference, logits)).tolist()),
    )


def _digest(photos: ValidationSet) -> str:
    return hashlib.sha256("\n".join(photo.sha256 for photo in photos.photos).encode()).hexdigest()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
