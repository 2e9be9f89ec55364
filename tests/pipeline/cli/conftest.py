"""A tiny ViT with random weights, a few photos, and the program as a function."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from pipeline.cli.main import app
from pipeline.models import ModelSpec, load_model

MODEL = "test_vit"
SIZE = 32
COLOURS = ("blue", "green", "red")
RECIPE = """
calibration_images = 6
[activations]
observer = "minmax"
[weights]
observer = "minmax"
"""

Run = Callable[..., Result]


@dataclass(frozen=True)
class Inputs:
    """What a deployment of the tiny model needs, all in one folder."""

    folder: Path
    checkpoint: Path
    calibration: Path
    validation: Path
    recipe: Path
    work: Path

    def options(self, *names: str) -> list[str]:
        """Options of these names, as the command line takes them."""
        return [text for name in names for text in (f"--{name}", str(getattr(self, name)))]


def write_photos(folder: Path, seed: int, count: int) -> None:
    """Write `count` noisy photos of each colour to folders named like the colours."""
    generator = np.random.default_rng(seed)
    for channel, colour in enumerate(reversed(COLOURS)):
        (folder / colour).mkdir(parents=True)
        for index in range(count):
            photo = generator.integers(0, 120, (40, 48, 3), dtype=np.uint8)
            photo[..., channel] += 120
            Image.fromarray(photo).save(folder / colour / f"{index}.png")


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Checkpoint, photos and recipe."""
    folder = tmp_path_factory.mktemp("inputs")
    model = load_model(ModelSpec(MODEL, random_seed=0, num_classes=3, input_size=SIZE))
    metadata = {"pocketvit.input_size": str(SIZE), "pocketvit.labels": json.dumps(COLOURS)}
    save_file(model.module.state_dict(), folder / "tiny.safetensors", metadata)
    write_photos(folder / "calibration", seed=0, count=2)
    write_photos(folder / "validation", seed=1, count=4)
    (folder / "quick.toml").write_text(RECIPE)
    return Inputs(
        folder,
        folder / "tiny.safetensors",
        folder / "calibration",
        folder / "validation",
        folder / "quick.toml",
        folder / "work",
    )


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs the program in this process; returns exit code, stdout and stderr."""

    def invoke(*arguments: Any) -> Result:
        texts = [str(argument) for argument in arguments]
        return CliRunner().invoke(app, texts, prog_name="pocketvit")

    return invoke


@pytest.fixture(scope="session")
def deploy_options(inputs: Inputs) -> list[str]:
    """A complete command for the tiny model but for --out."""
    return ["deploy", MODEL] + inputs.options(
        "checkpoint", "calibration", "validation", "recipe", "work"
    )


@pytest.fixture(scope="session")
def artifact(inputs: Inputs) -> Path:
    """Where `deployed` writes."""
    return inputs.folder / "artifact"


@pytest.fixture(scope="session")
def deployed(run: Run, deploy_options: list[str], artifact: Path) -> dict[str, Any]:
    """JSON of a deployment that is measured on this host."""
    result = run(*deploy_options, "--out", artifact, "--device-photos", 3, "--json")
    assert result.exit_code == 0, result.stderr
    content: dict[str, Any] = json.loads(result.stdout)
    return content


@pytest.fixture
def emulator() -> None:
    """Skips where ARM devices cannot be emulated."""
    for program in ("qemu-aarch64", "aarch64-linux-gnu-g++"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
