"""`build`: from a quantized model to an artifact."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import tvm

from pipeline.artifact import Artifact, BuiltLibrary, ModelInfo, write_artifact
from pipeline.artifact.write import check_destination
from pipeline.data.labels_file import read_labels_file
from pipeline.errors import UserError
from pipeline.quant.lowerable import check_lowerable
from pipeline.quant.storage import read_recipe
from pipeline.stages.build import build_stage
from pipeline.stages.class_names import class_names
from pipeline.stages.float_model import FloatModel, load_spec
from pipeline.stages.integer_module import read_module
from pipeline.stages.lower import lower_stage
from pipeline.stages.quantize import read_formats
from pipeline.stages.workspace import Workspace
from pipeline.verbs.result import BuildResult, built_files
from tvm_passes.aot import TargetSpec, resolve_target
from tvm_passes.graph.data_movement import movement
from tvm_passes.kernels.choices import Choices, read_choices
from tvm_passes.lowering.io import logits_scale


def build(
    quantized: Path,
    target_names: Sequence[str],
    out: Path,
    workspace: Workspace,
    checkpoint: Path | None = None,
    labels_file: Path | None = None,
    dump: Path | None = None,
    kernel_configs: Sequence[Path] = (),
) -> BuildResult:
    """Build libraries of a quantized model; that of this host is always among them.

    Args:
        quantized: folder that `quantize` wrote.
        target_names: keys of `TARGETS`, or "host".
        out: the artifact; an older one is replaced.
        workspace: caches the stages.
        checkpoint: the float model's weights, where they are no longer at their old place.
        labels_file: class names, one a line; None for the checkpoint's, or class indices.
        dump: folder that receives every phase of the lowering as runnable TVMScript.
        kernel_configs: files that choose schedules of kernels, at most one for each ISA.

    Raises:
        UserError: the weights are not those that were quantized, or `out` is something else.
        LoweringError: there is no such target, or the network cannot be compiled.
    """
    check_destination(out)
    check_lowerable(read_recipe(quantized))
    targets = resolve_targets(target_names)
    choices = read_kernel_configs(kernel_configs, targets)
    spec = load_spec(quantized)
    if checkpoint is not None:
        spec = replace(spec, checkpoint=checkpoint)
    model = FloatModel(spec, workspace.reporter)
    names = _names(labels_file) if labels_file else class_names(model)
    module = lower_stage(workspace, model, quantized, dump)
    libraries = [
        build_stage(workspace, spec.name, module, target, dump, choices) for target in targets
    ]
    integer = read_module(module)
    artifact = pack(out, model, quantized, integer, libraries, names)
    return BuildResult(
        model=spec.name,
        recipe=artifact.manifest.model.recipe,
        movement=movement(integer),
        libraries=built_files(artifact),
        artifact=out,
    )


def resolve_targets(names: Sequence[str]) -> list[TargetSpec]:
    """The host's target and the named ones, each once.

    Raises:
        LoweringError: there is no such target.
    """
    return list(dict.fromkeys(resolve_target(name) for name in ("host", *names)))


def read_kernel_configs(files: Sequence[Path], targets: Sequence[TargetSpec]) -> list[Choices]:
    """The schedules that files choose.

    Raises:
        UserError: two files are for the same ISA, or one is for none of the targets.
        LoweringError: a file cannot be read.
    """
    found: dict[str, Choices] = {}
    isas = {target.isa for target in targets}
    for file in files:
        choices = read_choices(file)
        if choices.isa not in isas:
            raise UserError(
                f"{file} chooses kernels for {choices.isa}, but the targets are for "
                f"{', '.join(sorted(isas))}; add a --target, or leave the file out."
            )
        if choices.isa in found:
            raise UserError(f"Two kernel configurations are for {choices.isa}; give one of them.")
        found[choices.isa] = choices
    return list(found.values())


def pack(
    out: Path,
    model: FloatModel,
    quantized: Path,
    integer: tvm.IRModule,
    libraries: Sequence[BuiltLibrary],
    names: Sequence[str],
    extra_files: Mapping[str, bytes] | None = None,
) -> Artifact:
    """Write the artifact of a model.

    Raises:
        UserError: see `write_artifact`.
    """
    info = ModelInfo(
        name=model.spec.name,
        recipe=read_recipe(quantized).name,
        input_size=model.preprocessing.input_size,
        num_classes=model.loaded.num_classes,
        logits_scale=logits_scale(integer),
        preprocessing=model.preprocessing.to_dict(),
        quantization=read_formats(quantized),  # type: ignore[arg-type]  # it is plain JSON
        movement=movement(integer),
    )
    return write_artifact(out, info, libraries, names, extra_files)


def _names(labels_file: Path) -> list[str]:
    names = read_labels_file(labels_file).names
    if not names:
        raise UserError(
            f"The labels file {labels_file} lists photos, not classes; write one class name a line."
        )
    return list(names)
