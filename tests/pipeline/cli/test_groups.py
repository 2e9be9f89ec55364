"""A parameter that stands for several options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli.groups import expand
from pipeline.cli.model import ModelSettings
from pipeline.models import ModelSpec


@dataclass(frozen=True)
class Size:
    """Two options."""

    width: Annotated[int, typer.Option(help="In pixels.")]
    height: Annotated[int, typer.Option(min=1, help="In pixels.")] = 3


@expand
def draw(name: Annotated[str, typer.Argument()], *, size: Size, bold: bool = False) -> None:
    """Draw something."""
    print(name, size, bold)


def _run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(draw)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["--width", "5", "--bold", "box"], "box Size(width=5, height=3) True\n"),
        (["box", "--height", "1", "--width", "2"], "box Size(width=2, height=1) False\n"),
    ],
)
def test_options_of_a_group_arrive_in_it(arguments: list[str], printed: str) -> None:
    assert _run(*arguments) == (0, printed)


def test_options_of_a_group_are_checked_like_any_other() -> None:
    missing, text = _run("box")
    assert missing == 2 and "--width" in text
    too_small, text = _run("box", "--width", "1", "--height", "0")
    assert too_small == 2 and "--height" in text


def test_every_setting_of_a_model_is_passed_on() -> None:
    settings = ModelSettings(
        pretrained=True,
        random_weights=1,
        num_classes=2,
        input_size=3,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        interpolation="nearest",
        crop_pct=0.7,
        resize="none",
    )
    assert settings.spec("a", Path("b")) == ModelSpec(
        name="a",
        checkpoint=Path("b"),
        pretrained=True,
        random_seed=1,
        num_classes=2,
        input_size=3,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        interpolation="nearest",
        crop_pct=0.7,
        resize="none",
    )
