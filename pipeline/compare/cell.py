"""One cell of a comparison: a model, a method and a number of bits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline.compare.paired import Energies, Hits
from pipeline.data.source import PhotoSource
from pipeline.models import ModelSpec

Level = Literal["simulated", "integer"]


@dataclass(frozen=True)
class Subject:
    """A model and the photos that methods are tried on.

    Attributes:
        title: what tables call it, unique in a comparison.
        spec: the model and its weights.
        calibration: photos, labels not needed.
        validation: labelled photos.
        labels_file: labels, where the folders do not say them.
        limit: use only so many validation photos.
    """

    title: str
    spec: ModelSpec
    calibration: PhotoSource
    validation: PhotoSource
    labels_file: Path | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Cell:
    """What is to be found out.

    Attributes:
        subject: the model.
        method: what tables call the recipe.
        recipe: its name or path.
        bits: such as w4a4; empty for the recipe's own.
        level: whose accuracy counts: the simulation's, or the library's on this host.
        seed: of the draw of calibration photos.
    """

    subject: Subject
    method: str
    recipe: str
    bits: str
    level: Level
    seed: int

    @property
    def recipe_name(self) -> str:
        """Recipe and bits, as `load_recipe` takes them."""
        return f"{self.recipe}:{self.bits}" if self.bits else self.recipe

    def __str__(self) -> str:
        """Short name for messages."""
        return " ".join(filter(None, (self.subject.title, self.method, self.bits)))


class Figures(BaseModel):
    """What is known of a cell that was computed.

    Attributes:
        photos: how many were validated on.
        photos_sha256: of their contents, in their order.
        calibration_photos: how many there were.
        quantize_seconds: wall time of the quantization, when it was really done.
        float_top1: share of photos that the float model gets right.
        top1: that the quantized one gets right.
        top1_difference: the second minus the first.
        top1_low: lower end of its 95 % bootstrap interval, None for a single photo.
        top1_high: upper end.
        agreement: share of photos with the same top class as in float.
        sqnr_db: of the logits against float; None where they are equal.
        labels: class per photo.
        predictions: top class per photo.
        noise: energy of the error of the logits per photo.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    photos: int
    photos_sha256: str
    calibration_photos: int
    quantize_seconds: float
    float_top1: float
    top1: float
    top1_difference: float
    top1_low: float | None
    top1_high: float | None
    agreement: float
    sqnr_db: float | None
    labels: tuple[int, ...]
    predictions: tuple[int, ...]
    noise: tuple[float, ...]

    @property
    def hits(self) -> Hits:
        """Whether the top class is the label, `[photos]`."""
        return np.equal(self.labels, self.predictions)

    @property
    def energies(self) -> Energies:
        """The noise, `[photos]`."""
        return np.array(self.noise, np.float64)


class CellResult(BaseModel):
    """A cell's file: what it was, and its figures or the reason why there are none.

    Attributes:
        model: title of the subject.
        method: of the cell, as the three below.
        bits: see `Cell`.
        level: see `Cell`.
        seed: see `Cell`.
        error: one sentence; None where all went well.
        figures: None where it failed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    method: str
    bits: str
    level: Level
    seed: int
    error: str | None = None
    figures: Figures | None = None

    @classmethod
    def of(cls, cell: Cell, figures: Figures) -> "CellResult":
        """The result of a cell that was computed."""
        return cls.model_validate(_identity(cell) | {"figures": figures})

    @classmethod
    def failed(cls, cell: Cell, error: str) -> "CellResult":
        """The result of a cell that could not be computed."""
        return cls.model_validate(_identity(cell) | {"error": error})


def _identity(cell: Cell) -> dict[str, object]:
    return {
        "model": cell.subject.title,
        "method": cell.method,
        "bits": cell.bits,
        "level": cell.level,
        "seed": cell.seed,
    }
