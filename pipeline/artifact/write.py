"""`write_artifact`: everything that ships, in one directory."""

import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.artifact.manifest import HEADER, LABELS, MANIFEST, LibraryEntry, Manifest, ModelInfo
from pipeline.artifact.read import Artifact
from pipeline.errors import UserError
from pipeline.files.hashing import sha256_file
from pipeline.files.staging import check_writable, staged_directory
from tvm_passes.aot import LibraryReport, TargetSpec, bytes_by_bits
from tvm_passes.aot.library import public_header

KERNELS = "kernels.json"
TOOLS = ("pocketvit", "apache-tvm", "apache-tvm-ffi", "torch", "timm", "numpy")


@dataclass(frozen=True)
class BuiltLibrary:
    """A library that ``tvm_passes.aot.build_library`` made.

    Attributes:
        path: the file.
        target: what it was built for.
        report: its sizes.
        kernels: file with the schedule of every kernel, or None where that is not known.
    """

    path: Path
    target: TargetSpec
    report: LibraryReport
    kernels: Path | None = None


def write_artifact(
    destination: Path,
    model: ModelInfo,
    libraries: Sequence[BuiltLibrary],
    labels: Sequence[str],
    extra_files: Mapping[str, bytes] | None = None,
) -> Artifact:
    """Write an artifact; an older one at ``destination`` is replaced in one step.

    Args:
        destination: the directory.
        model: the network.
        libraries: at most one per target.
        labels: class names in the order of the logits.
        extra_files: more files by path inside the artifact, for example a report.

    Raises:
        UserError: the labels do not fit the model, ``destination`` holds something that is not an
            artifact, or the disk is full. Nothing is changed then.
    """
    check_destination(destination)
    _check_labels(model, labels)
    with staged_directory(destination, replace=True) as staged:
        entries: dict[str, LibraryEntry] = {}
        for library in libraries:
            file = f"lib/{library.target.name}/libpocketvit_{model.name}.so"
            _place(staged, file, library.path)
            entries[library.target.name] = _entry(file, library)
            if library.kernels is not None:
                _place(staged, f"lib/{library.target.name}/{KERNELS}", library.kernels)
        texts = {HEADER: public_header(), LABELS: "".join(f"{label}\n" for label in labels)}
        contents = {path: text.encode() for path, text in texts.items()} | dict(extra_files or {})
        for path, content in contents.items():
            _place(staged, path, content)
        paths = sorted(path for path in staged.rglob("*") if path.is_file())
        manifest = Manifest(
            abi_version=abi_version(),
            model=model,
            libraries=entries,
            tools=_tool_versions(),
            files={path.relative_to(staged).as_posix(): sha256_file(path) for path in paths},
        )
        (staged / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    return Artifact(destination, manifest, tuple(labels))


def abi_version() -> int:
    """``POCKETVIT_ABI_VERSION`` as the header defines it."""
    found = re.search(r"#define POCKETVIT_ABI_VERSION (\d+)", public_header())
    assert found, "the header defines its version"
    return int(found[1])


def check_destination(destination: Path) -> None:
    """Make sure that an artifact may be written to a directory, before any work is done for it.

    Raises:
        UserError: something that is not an artifact is there, or nothing can be written there.
    """
    check_writable(destination)
    if not destination.exists():
        return
    empty = destination.is_dir() and not any(destination.iterdir())
    if not empty and not (destination / MANIFEST).is_file():
        raise UserError(
            f"{destination} exists and is no artifact; choose another directory or remove it."
        )


def _check_labels(model: ModelInfo, labels: Sequence[str]) -> None:
    if len(labels) != model.num_classes:
        raise UserError(
            f"There are {len(labels)} labels for the {model.num_classes} classes of {model.name}; "
            "give one label per class."
        )
    broken = next((label for label in labels if not label or len(label.splitlines()) != 1), None)
    if broken is not None:
        raise UserError(f"The label {broken!r} is not one line of text; correct it.")


def _place(root: Path, path: str, content: Path | bytes) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        target.write_bytes(content)
    else:
        shutil.copy(content, target)


def _entry(file: str, library: BuiltLibrary) -> LibraryEntry:
    report = library.report
    by_bits = bytes_by_bits(report.weights)
    return LibraryEntry(
        file=file,
        isa=library.target.isa,
        arena_bytes=report.arena_bytes,
        parameter_bytes=report.parameter_bytes,
        weight_bytes=sum(by_bits.values()),
        weight_bytes_by_bits=by_bits,
        code_bytes=report.code_bytes,
        file_bytes=report.file_bytes,
        layers=report.layers,
    )


def _tool_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for tool in TOOLS:
        try:
            versions[tool] = version(tool)
        except PackageNotFoundError:
            continue  # only the installed ones can have taken part
    return versions
