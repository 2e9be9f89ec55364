"""What the verbs find out, as data with a JSON form."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifact import Artifact
from pipeline.device import Measurement
from pipeline.quant.evaluate import agreement, sqnr_db, top1
from pipeline.stages.logits import Logits
from pipeline.stages.photos import ValidationSet
from tvm_passes.graph.data_movement import Movement


@dataclass(frozen=True)
class Comparison:
    """How far the logits of one level are from those of another.

    Attributes:
        sqnr_db: signal to noise ratio of the logits in dB; infinite where they are equal.
        agreement: share of photos with the same top class.
    """

    sqnr_db: float
    agreement: float

    @classmethod
    def of(cls, reference: Logits, other: Logits) -> "Comparison":
        """Compare `[photos, classes]` logits in real units."""
        return cls(sqnr_db(reference, other), agreement(reference, other))


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of the levels of truth on the same photos.

    Attributes:
        photos: how many.
        labels: the rule that labelled them.
        skipped: files that could not be used, by reason.
        float_top1: share of photos that the timm model gets right.
        simulated_top1: that the quantized graph in torch gets right.
        integer_top1: that the library gets right; None where none was built.
        simulated_vs_float: logits of the simulation, and below of the library, as real numbers.
        integer_vs_float: None where no library was built.
        integer_vs_simulated: likewise.
    """

    photos: int
    labels: str
    skipped: dict[str, int]
    float_top1: float
    simulated_top1: float
    simulated_vs_float: Comparison
    integer_top1: float | None = None
    integer_vs_float: Comparison | None = None
    integer_vs_simulated: Comparison | None = None


def accuracy(
    photos: ValidationSet, float_logits: Logits, simulated: Logits, integer: Logits | None = None
) -> Accuracy:
    """Compare the logits of all levels, `[photos, classes]` in real units."""
    labels = photos.labels
    found = Accuracy(
        photos=len(photos.photos),
        labels=photos.rule,
        skipped=photos.skipped,
        float_top1=top1(float_logits, labels),
        simulated_top1=top1(simulated, labels),
        simulated_vs_float=Comparison.of(float_logits, simulated),
    )
    if integer is None:
        return found
    return replace(
        found,
        integer_top1=top1(integer, labels),
        integer_vs_float=Comparison.of(float_logits, integer),
        integer_vs_simulated=Comparison.of(simulated, integer),
    )


@dataclass(frozen=True)
class BuiltFile:
    """A library of an artifact; sizes in bytes."""

    target: str
    isa: str
    path: Path
    file_bytes: int
    arena_bytes: int


def built_files(artifact: Artifact) -> tuple[BuiltFile, ...]:
    """The libraries of an artifact."""
    return tuple(
        BuiltFile(name, entry.isa, artifact.path / entry.file, entry.file_bytes, entry.arena_bytes)
        for name, entry in artifact.manifest.libraries.items()
    )


@dataclass(frozen=True)
class ReferenceCheck:
    """The host's library against the NumPy reference: photos compared, and how many differ."""

    photos: int
    differing: int


@dataclass(frozen=True)
class DeployResult:
    """All that `deploy` finds out."""

    model: str
    recipe: str
    formats: Sequence[dict[str, Any]]
    accuracy: Accuracy
    reference: ReferenceCheck
    measurements: tuple[Measurement, ...]
    movement: Movement
    libraries: tuple[BuiltFile, ...]
    artifact: Path


@dataclass(frozen=True)
class QuantizeResult:
    """All that `quantize` finds out; accuracy where validation photos were given."""

    model: str
    recipe: str
    formats: Sequence[dict[str, Any]]
    accuracy: Accuracy | None
    quantized: Path


@dataclass(frozen=True)
class BuildResult:
    """All that `build` finds out."""

    model: str
    recipe: str
    movement: Movement
    libraries: tuple[BuiltFile, ...]
    artifact: Path


@dataclass(frozen=True)
class MeasureResult:
    """All that `measure` finds out."""

    model: str
    recipe: str
    measurements: tuple[Measurement, ...]
    artifact: Path


@dataclass(frozen=True)
class SplitResult:
    """All that `split` finds out.

    Attributes:
        lists: the two files.
        photos: how many each of them names.
        repeated: photos left out because another one has the same content.
        skipped: the files that cannot be used, in words.
    """

    lists: tuple[Path, Path]
    photos: tuple[int, int]
    repeated: int
    skipped: str


@dataclass(frozen=True)
class CompareResult:
    """All that `compare` finds out.

    Attributes:
        columns: names of the columns of `rows`.
        rows: one for each cell, in words.
        cells: the same in numbers.
        failed: cells that could not be computed.
        files: the reports.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    cells: tuple[dict[str, Any], ...]
    failed: int
    files: tuple[Path, ...]


Result = DeployResult | QuantizeResult | BuildResult | MeasureResult | SplitResult | CompareResult


def problems(result: Any) -> list[str]:
    """Sentences about what should not be: logits that differ, cells that failed."""
    found = []
    if failed := getattr(result, "failed", 0):
        found.append(
            f"{failed} of {len(result.cells)} cells failed; see the column error, and try again "
            "with --retry-failed."
        )
    reference = getattr(result, "reference", None)
    if reference is not None and reference.differing:
        found.append(
            f"The host's library and the NumPy reference differ on {reference.differing} of "
            f"{reference.photos} photos; please report how the model was built."
        )
    for measurement in getattr(result, "measurements", ()):
        if measurement.differing_images:
            found.append(
                f"The logits of {measurement.device} and of this host differ on "
                f"{measurement.differing_images} of {measurement.images} images; please report "
                "how the library was built."
            )
    return found


def to_json(result: Any) -> str:
    """A result as JSON text; numbers that JSON lacks (infinity) become null."""
    return json.dumps(_plain(asdict(result)), indent=2)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
