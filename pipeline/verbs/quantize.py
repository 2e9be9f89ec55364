"""`quantize`: from a model and photos to a quantized model on disk."""

import shutil
from pathlib import Path

from pipeline.data.source import PhotoSource
from pipeline.errors import UserError
from pipeline.files.staging import check_writable, staged_directory
from pipeline.models import ModelSpec
from pipeline.quant.lowerable import check_lowerable
from pipeline.quant.recipe import load_recipe
from pipeline.quant.storage import DESCRIPTION
from pipeline.stages.float_logits import float_logits
from pipeline.stages.float_model import FloatModel, save_spec
from pipeline.stages.photos import draw_calibration, scan_validation
from pipeline.stages.quantize import SECONDS, quantize_stage, read_formats
from pipeline.stages.simulated_logits import simulated_logits
from pipeline.stages.workspace import Workspace
from pipeline.verbs.result import QuantizeResult, accuracy


def quantize(
    spec: ModelSpec,
    calibration: PhotoSource,
    out: Path,
    workspace: Workspace,
    recipe_name: str = "pocket",
    validation: PhotoSource | None = None,
    labels_file: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    simulate_only: bool = False,
) -> QuantizeResult:
    """Quantize a model and, given validation photos, compare the simulation with the float model.

    Args:
        spec: the model and its weights.
        calibration: folder or list of photos, labels not needed.
        out: folder for the quantized model; an older one is replaced.
        workspace: caches the stages.
        recipe_name: name or path of a recipe.
        validation: folder or list of labelled photos.
        labels_file: labels, where the folders do not say them.
        limit: use only so many validation photos.
        seed: selects another draw of calibration photos.
        simulate_only: recipes that cannot become integers are allowed.

    Raises:
        UserError: whatever is wrong with the input.
    """
    check_writable(out)
    if out.exists() and any(out.iterdir()) and not (out / DESCRIPTION).is_file():
        raise UserError(f"{out} exists and is no quantized model; choose another directory.")
    recipe = load_recipe(recipe_name)
    if not simulate_only:
        check_lowerable(recipe)
    model = FloatModel(spec, workspace.reporter)
    settings = model.preprocessing
    photos = (
        scan_validation(
            workspace,
            validation,
            model.loaded.num_classes,
            settings,
            labels_file,
            limit,
            calibration,
        )
        if validation
        else None
    )
    drawn = draw_calibration(
        workspace, calibration, recipe.calibration_images, seed, settings, recipe.most_images
    )
    result = quantize_stage(workspace, model, recipe, drawn)
    found = None
    if photos is not None:
        simulated = simulated_logits(workspace, model, result, photos)
        found = accuracy(photos, float_logits(workspace, model, photos), simulated)
    with staged_directory(out, replace=True) as staged:
        # how long the work took is no part of the model
        shutil.copytree(result, staged, dirs_exist_ok=True, ignore=shutil.ignore_patterns(SECONDS))
        save_spec(spec, staged)
    return QuantizeResult(spec.name, recipe.name, read_formats(result), found, out)
