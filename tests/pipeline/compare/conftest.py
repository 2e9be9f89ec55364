"""A tiny model, photos, and cells that cost next to nothing."""

from pathlib import Path

import pytest

from pipeline.compare.cell import Cell, Figures, Subject
from pipeline.models import ModelSpec

from ..cli.conftest import MODEL, RECIPE, SIZE, write_photos


@pytest.fixture(scope="session")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A ViT of random weights with a few photos."""
    folder = tmp_path_factory.mktemp("subject")
    write_photos(folder / "calibration", seed=0, count=2)
    write_photos(folder / "validation", seed=1, count=3)
    spec = ModelSpec(MODEL, random_seed=0, num_classes=3, input_size=SIZE)
    return Subject("vit", spec, folder / "calibration", folder / "validation")


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that calibrates quickly."""
    path = tmp_path_factory.mktemp("recipe") / "quick.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def cell(subject: Subject, recipe: Path) -> Cell:
    """The tiny model by the quick recipe."""
    return Cell(subject, "quick", str(recipe), "w8a8", "simulated", 0)


@pytest.fixture
def figures() -> Figures:
    """Figures of four photos."""
    return Figures(
        photos=4,
        photos_sha256="ab",
        calibration_photos=6,
        quantize_seconds=1.5,
        float_top1=0.75,
        top1=0.5,
        top1_difference=-0.25,
        top1_low=-0.75,
        top1_high=0.0,
        agreement=0.75,
        sqnr_db=20.0,
        labels=(0, 1, 2, 0),
        predictions=(0, 1, 0, 1),
        noise=(1.0, 2.0, 3.0, 4.0),
    )
