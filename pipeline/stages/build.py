"""One library per target."""

import errno
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.artifact import BuiltLibrary
from pipeline.progress import Step
from pipeline.stages.integer_module import read_module
from pipeline.stages.workspace import Workspace
from tvm_passes.aot import (
    LibraryInfo,
    LibraryReport,
    StoredWeights,
    TargetSpec,
    build_library,
)
from tvm_passes.graph.select import chosen
from tvm_passes.kernels.choices import Choices
from tvm_passes.kernels.isa import ISAS
from tvm_passes.lowering.io import logits_scale
from tvm_passes.pipeline import to_kernels

SPACE = 64 << 20  # bytes, several times what a library and its parts take
LIBRARY = "library.so"
KERNELS = "kernels.json"
REPORT = "report.json"


def build_stage(
    workspace: Workspace,
    name: str,
    module: Path,
    target: TargetSpec,
    dump: Path | None = None,
    choices: Sequence[Choices] = (),
) -> BuiltLibrary:
    """The library of an integer module for one target.

    Args:
        workspace: caches the result.
        name: what the library calls its model.
        module: file with the integer module.
        target: what to build for.
        dump: folder that receives the module after kernel selection, cached or not.
        choices: schedules to use instead of the default ones; those for another ISA are ignored.

    Raises:
        LoweringError: an operator has no kernel or no such schedule, or the compiler is missing
            or fails.
    """

    isa = ISAS[target.isa]
    own = next((choice for choice in choices if choice.isa == isa.name), None)

    def produce(folder: Path, step: Step) -> None:
        _require_space(folder)
        integer = read_module(module)
        kernels = to_kernels(integer, isa, choices=own)
        chosen(kernels, isa).save(folder / KERNELS)
        info = LibraryInfo(name, logits_scale(integer))
        report = build_library(kernels, target, info, folder / LIBRARY)
        (folder / REPORT).write_text(json.dumps(asdict(report)))

    if dump is not None:
        to_kernels(read_module(module), isa, dump, own)
    compiler = os.environ.get("ANDROID_NDK_HOME") if target.system == "android" else None
    folder = workspace.stage(
        "build",
        {
            "name": name,
            "target": asdict(target),
            "compiler": compiler,
            "kernels": asdict(own) if own else {},
        },
        produce,
        files=[module],
        title=f"build for {target.name}",
    )
    content = json.loads((folder / REPORT).read_text())
    lists = {
        "layers": tuple(content["layers"]),
        "weights": tuple(StoredWeights(**each) for each in content["weights"]),
    }
    report = LibraryReport(**(content | lists))
    return BuiltLibrary(folder / LIBRARY, target, report, folder / KERNELS)


def _require_space(folder: Path) -> None:
    """Raise what writing to a full disk raises; LLVM would end the process instead."""
    if shutil.disk_usage(folder).free < SPACE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
