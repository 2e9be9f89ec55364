"""pocketvit sensitivity."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.groups import expand
from pipeline.cli.model import ModelSettings
from pipeline.cli.options import DATA_PANEL, VALIDATION_HELP


@expand
def sensitivity(
    model: options.Model,
    calibration: options.Calibration,
    validation: Annotated[
        Path,
        typer.Option(
            metavar="DIR|LIST", help=VALIDATION_HELP, rich_help_panel=DATA_PANEL, show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Data (JSON, CSV) and pictures (PNG, SVG). An older study is replaced.",
            show_default=False,
        ),
    ],
    *,
    checkpoint: options.Checkpoint = None,
    settings: ModelSettings,
    recipe: options.Recipe = "pocket",
    photos_root: options.PhotosRoot = None,
    labels: options.Labels = None,
    photos: Annotated[
        int,
        typer.Option(
            min=1,
            help="Validation photos to run, evenly from all classes, through two networks for "
            "each layer.",
            rich_help_panel=DATA_PANEL,
        ),
    ] = 16,
    seed: options.Seed = 0,
    work: options.Work = None,
    json: options.Json = False,
) -> None:
    """Tell which layers of a quantized model cost accuracy.

    For every product, with its weights and inputs, and for every other stored tensor: the SQNR of
    its output in the quantized network, and the logits when it alone is quantized and when it
    alone is left in float. For every stored tensor: the range of its values, in all and by
    channel, beside the one that was chosen.
    """
    with options.workspace("sensitivity", work) as workspace:
        from pipeline.cli.table import show
        from pipeline.data.source import photo_source
        from pipeline.verbs.sensitivity import sensitivity as run

        result = run(
            settings.spec(model, checkpoint),
            photo_source(calibration, photos_root),
            photo_source(validation, photos_root),
            out,
            workspace,
            recipe,
            labels,
            photos,
            seed,
        )
    show(result, json)
