"""Options that say what is known of a model besides its name and its checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import MODEL_PANEL

if TYPE_CHECKING:
    from pipeline.models import ModelSpec

SETTING = "the checkpoint's metadata, or timm's"


@dataclass(frozen=True)
class ModelSettings:
    """A group of options, see `pipeline.cli.groups`; the fields are those of `ModelSpec`."""

    pretrained: Annotated[
        bool,
        typer.Option(
            "--pretrained",
            help="Download timm's weights instead of --checkpoint.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = False
    random_weights: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            help="Fill the model with random weights instead: to learn its speed and size before "
            "it is trained.",
            rich_help_panel=MODEL_PANEL,
            show_default=False,
        ),
    ] = None
    num_classes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of classes.",
            rich_help_panel=MODEL_PANEL,
            show_default="the checkpoint's, or timm's",
        ),
    ] = None
    input_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Side of the input in pixels.",
            rich_help_panel=MODEL_PANEL,
            show_default=SETTING,
        ),
    ] = None
    mean: Annotated[
        tuple[float, float, float] | None,
        typer.Option(
            metavar="R G B",
            help="What the model subtracts from pixels in 0..1.",
            rich_help_panel=MODEL_PANEL,
            show_default=SETTING,
        ),
    ] = None
    std: Annotated[
        tuple[float, float, float] | None,
        typer.Option(
            metavar="R G B",
            help="What it divides them by.",
            rich_help_panel=MODEL_PANEL,
            show_default=SETTING,
        ),
    ] = None
    interpolation: Annotated[
        str | None,
        typer.Option(
            help="Of the resize: nearest, bilinear, bicubic or lanczos.",
            rich_help_panel=MODEL_PANEL,
            show_default=SETTING,
        ),
    ] = None
    crop_pct: Annotated[
        float | None,
        typer.Option(
            help="Side of the centre crop relative to the resized photo, in (0, 1].",
            rich_help_panel=MODEL_PANEL,
            show_default=SETTING,
        ),
    ] = None
    resize: Annotated[
        str | None,
        typer.Option(
            help="shorter (its side is resized), squash (both sides are) or none.",
            rich_help_panel=MODEL_PANEL,
            show_default=SETTING,
        ),
    ] = None

    def spec(self, name: str, checkpoint: Path | None) -> "ModelSpec":
        """The model that the options describe.

        Args:
            name: timm's name of it.
            checkpoint: file with weights, if that is where they come from.
        """
        from pipeline.models import ModelSpec  # timm takes seconds

        return ModelSpec(
            name=name,
            checkpoint=checkpoint,
            pretrained=self.pretrained,
            random_seed=self.random_weights,
            num_classes=self.num_classes,
            input_size=self.input_size,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            resize=self.resize,
        )
