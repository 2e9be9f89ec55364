"""`deploy`: from a model and photos to a measured artifact."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.artifact import Artifact
from pipeline.artifact.write import check_destination
from pipeline.data.source import PhotoSource
from pipeline.device import Measurement
from pipeline.errors import UserError
from pipeline.models import ModelSpec
from pipeline.quant.lowerable import check_lowerable
from pipeline.quant.recipe import load_recipe
from pipeline.stages.build import build_stage
from pipeline.stages.class_names import class_names
from pipeline.stages.float_logits import float_logits
from pipeline.stages.float_model import FloatModel
from pipeline.stages.integer_logits import integer_logits
from pipeline.stages.integer_module import read_module
from pipeline.stages.logits import Logits
from pipeline.stages.lower import lower_stage
from pipeline.stages.photos import draw_calibration, scan_validation
from pipeline.stages.quantize import quantize_stage, read_formats
from pipeline.stages.reference_logits import reference_logits
from pipeline.stages.simulated_logits import simulated_logits
from pipeline.stages.workspace import Workspace
from pipeline.verbs.build import pack, read_kernel_configs, resolve_targets
from pipeline.verbs.choice import Choice, Emulated, Remote
from pipeline.verbs.measure import LabelledImage, measure_on
from pipeline.verbs.result import (
    DeployResult,
    ReferenceCheck,
    accuracy,
    built_files,
    to_json,
)
from tvm_passes.aot import resolve_target
from tvm_passes.graph.data_movement import movement
from tvm_passes.lowering.io import logits_scale


@dataclass(frozen=True)
class DeployOptions:
    """What `deploy` is to do, besides the model.

    Attributes:
        calibration: folder or list of photos, labels not needed.
        validation: folder or list of labelled photos.
        out: the artifact; an older one is replaced.
        recipe: name or path of a recipe.
        targets: keys of `TARGETS`, or "host"; the host's is built in any case.
        devices: where to measure.
        labels_file: labels, where the folders do not say them.
        limit: use only so many validation photos.
        seed: selects another draw of calibration photos.
        device_photos: photos to run on each device and through the NumPy reference.
        runs: timed runs on real hardware.
        warmup: runs before them.
        dump: folder that receives every phase of the lowering as runnable TVMScript.
        kernel_configs: files that choose schedules of kernels, at most one for each ISA.
    """

    calibration: PhotoSource
    validation: PhotoSource
    out: Path
    recipe: str = "pocket"
    targets: tuple[str, ...] = ()
    devices: tuple[Choice, ...] = ()
    labels_file: Path | None = None
    limit: int | None = None
    seed: int = 0
    device_photos: int = 16
    runs: int = 30
    warmup: int = 5
    dump: Path | None = None
    kernel_configs: tuple[Path, ...] = ()


def deploy(spec: ModelSpec, options: DeployOptions, workspace: Workspace) -> DeployResult:
    """Quantize, build, validate and measure a model, and write its artifact.

    Args:
        spec: the model and its weights.
        options: what to do.
        workspace: caches the stages, so that an interrupted run goes on where it stopped.

    Raises:
        UserError: whatever is wrong with the input or a device.
        LoweringError: there is no such target, or the network cannot be compiled.
    """
    # what can fail for reasons outside the network fails before any work is done
    check_destination(options.out)
    recipe = load_recipe(options.recipe)
    check_lowerable(recipe)
    needed = (device.targets()[0] for device in options.devices if isinstance(device, Emulated))
    targets = resolve_targets([*options.targets, *needed])
    choices = read_kernel_configs(options.kernel_configs, targets)
    _check_devices(options, workspace)

    model = FloatModel(spec, workspace.reporter)
    classes, settings = model.loaded.num_classes, model.preprocessing
    photos = scan_validation(
        workspace,
        options.validation,
        classes,
        settings,
        options.labels_file,
        options.limit,
        options.calibration,
    )
    drawn = draw_calibration(
        workspace,
        options.calibration,
        recipe.calibration_images,
        options.seed,
        settings,
        recipe.most_images,
    )

    quantized = quantize_stage(workspace, model, recipe, drawn)
    module = lower_stage(workspace, model, quantized, options.dump)
    libraries = [
        build_stage(workspace, spec.name, module, target, options.dump, choices)
        for target in targets
    ]

    logits = integer_logits(workspace, libraries[0].path, classes, photos)
    sample = photos.spread(options.device_photos)
    reference = reference_logits(workspace, module, photos, sample)
    integer = read_module(module)
    found = accuracy(
        photos,
        float_logits(workspace, model, photos),
        simulated_logits(workspace, model, quantized, photos),
        logits * logits_scale(integer),
    )
    names = class_names(model, photos)
    extra = {"accuracy.json": to_json(found).encode()}
    artifact = pack(options.out, model, quantized, integer, libraries, names, extra)

    images: Sequence[LabelledImage] = [
        (photos.pixels(index, index + 1), photos.photos[index].label) for index in sample.tolist()
    ]
    return DeployResult(
        model=spec.name,
        recipe=recipe.name,
        formats=read_formats(quantized),
        accuracy=found,
        reference=ReferenceCheck(
            len(sample), int(np.any(reference != logits[sample], axis=1).sum())
        ),
        measurements=_measure(options, workspace, artifact, images, logits[sample]),
        movement=movement(integer),
        libraries=built_files(artifact),
        artifact=options.out,
    )


def _phone_target(options: DeployOptions) -> str | None:
    """What a remote device runs: the first ARM target that was asked for."""
    return next((name for name in options.targets if resolve_target(name).is_arm), None)


def _check_devices(options: DeployOptions, workspace: Workspace) -> None:
    for device in options.devices:
        if isinstance(device, Remote) and _phone_target(options) is None:
            raise UserError(f"What to build for {device.name} is unknown; name it with --target.")
        device.check(workspace.reporter)


def _measure(
    options: DeployOptions,
    workspace: Workspace,
    artifact: Artifact,
    images: Sequence[LabelledImage],
    logits: Logits,
) -> tuple[Measurement, ...]:
    """What every device makes of some photos, whose logits on this host are known."""
    return tuple(
        measure_on(
            workspace,
            artifact,
            device,
            images,
            logits,
            options.runs,
            options.warmup,
            _phone_target(options) if isinstance(device, Remote) else None,
        )
        for device in options.devices
    )
