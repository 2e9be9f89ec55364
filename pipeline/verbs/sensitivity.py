"""`sensitivity`: which layers of a quantized network cost accuracy, and why."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.data.source import PhotoSource
from pipeline.errors import UserError
from pipeline.files.staging import check_writable, staged_directory
from pipeline.models import ModelSpec
from pipeline.quant.evaluate import sqnr_db, top1
from pipeline.quant.recipe import load_recipe
from pipeline.quant.reparam.equalize import equalize
from pipeline.quant.simulate import simulate
from pipeline.sensitivity.effects import Evaluation, layer_effects
from pipeline.sensitivity.files import layers_csv, ranges_csv
from pipeline.sensitivity.layers import find_layers
from pipeline.sensitivity.local import local_figures
from pipeline.sensitivity.pictures import range_map, save, sqnr_chart
from pipeline.sensitivity.result import LayerFigures, SensitivityResult
from pipeline.sensitivity.switch import with_layers
from pipeline.stages.float_model import FloatModel
from pipeline.stages.photos import draw_calibration, scan_validation
from pipeline.stages.quantize import open_quantized, quantize_stage
from pipeline.stages.workspace import Workspace
from pipeline.verbs.result import to_json

DATA = "sensitivity.json"
_SAME_DB = 60.0  # of the float graph and the quantized one without its quantizers


def sensitivity(
    spec: ModelSpec,
    calibration: PhotoSource,
    validation: PhotoSource,
    out: Path,
    workspace: Workspace,
    recipe_name: str = "pocket",
    labels_file: Path | None = None,
    limit: int = 16,
    seed: int = 0,
) -> SensitivityResult:
    """Quantize a model and find out layer by layer what that costs.

    Args:
        spec: the model and its weights.
        calibration: folder or list of photos, labels not needed.
        validation: folder or list of labelled photos.
        out: folder for data and pictures; an older one is replaced.
        workspace: caches the quantization.
        recipe_name: name or path of a recipe.
        labels_file: labels, where the folders do not say them.
        limit: validation photos to run, through two networks for each layer.
        seed: selects another draw of calibration photos.

    Raises:
        UserError: whatever is wrong with the input.
    """
    check_writable(out)
    if out.exists() and any(out.iterdir()) and not (out / DATA).is_file():
        raise UserError(f"{out} exists and is no study of sensitivity; choose another directory.")
    recipe = load_recipe(recipe_name)
    model = FloatModel(spec, workspace.reporter)
    settings = model.preprocessing
    photos = scan_validation(
        workspace,
        validation,
        model.loaded.num_classes,
        settings,
        labels_file,
        limit,
        calibration,
    )
    drawn = draw_calibration(
        workspace, calibration, recipe.calibration_images, seed, settings, recipe.most_images
    )
    quantized = quantize_stage(workspace, model, recipe, drawn)
    opened = open_quantized(quantized, model)
    graph = opened.graph
    float_graph = equalize(model.graph, opened.quantization.equalizations)

    images = photos.pixels(0, len(photos.photos))
    layers = find_layers(graph)
    with workspace.reporter.step("float and quantized network", len(images)) as step:
        logits = simulate(float_graph, images)
        bare = sqnr_db(logits, simulate(with_layers(graph, float_graph, frozenset()), images))
        evaluation = Evaluation(list(images), photos.labels, logits)
        whole = evaluation.effect(graph)
        local = local_figures(graph, float_graph, images, step.advance)
    if bare < _SAME_DB:
        workspace.reporter.note(
            f"Without its quantizers the network of this recipe is not the float one ({bare:.0f} "
            "dB): figures of single layers hold what the recipe changed besides."
        )
    with workspace.reporter.step("layer by layer", 2 * len(layers)) as step:
        effects = list(layer_effects(graph, float_graph, layers, evaluation, step.advance))
    result = SensitivityResult(
        model=spec.name,
        recipe=recipe.name,
        photos=len(images),
        float_top1=top1(np.asarray(logits), photos.labels),
        quantized=whole,
        layers=tuple(
            LayerFigures(layer, local.sqnr_db[layer.name], found)
            for layer, found in zip(layers, effects, strict=True)
        ),
        ranges=local.ranges,
    )
    with workspace.reporter.step("write data and pictures"):
        return _write(result, out)


def _write(result: SensitivityResult, out: Path) -> SensitivityResult:
    with staged_directory(out, replace=True) as staged:
        (staged / DATA).write_text(to_json(result) + "\n", encoding="utf-8")
        (staged / "layers.csv").write_text(layers_csv(result), encoding="utf-8")
        (staged / "ranges.csv").write_text(ranges_csv(result), encoding="utf-8")
        save(sqnr_chart(result), staged, "sqnr")
        save(range_map(result), staged, "ranges")
        names = sorted(path.name for path in staged.iterdir())
    return replace(result, files=tuple(out / name for name in names))
