"""pocketvit quantize."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.groups import expand
from pipeline.cli.model import ModelSettings
from pipeline.cli.options import DATA_PANEL, VALIDATION_HELP


@expand
def quantize(
    model: options.Model,
    calibration: options.Calibration,
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="The quantized model, which pocketvit build reads.",
            show_default=False,
        ),
    ],
    *,
    checkpoint: options.Checkpoint = None,
    settings: ModelSettings,
    recipe: options.Recipe = "pocket",
    validation: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|LIST",
            help=f"Compare the simulation with the float model on these. {VALIDATION_HELP}",
            rich_help_panel=DATA_PANEL,
            show_default=False,
        ),
    ] = None,
    photos_root: options.PhotosRoot = None,
    labels: options.Labels = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    simulate_only: Annotated[
        bool,
        typer.Option(
            "--simulate-only", help="Allow recipes that can be simulated, but not be built."
        ),
    ] = False,
    work: options.Work = None,
    json: options.Json = False,
) -> None:
    """Quantize a model by a recipe, without building anything.

    Prints which roles of tensors have which formats and, with --validation, the accuracy of the
    simulation: the quantized graph run in torch.
    """
    with options.workspace("quantize", work) as workspace:
        from pipeline.cli.table import show
        from pipeline.data.source import photo_source
        from pipeline.verbs.quantize import quantize as run

        result = run(
            settings.spec(model, checkpoint),
            photo_source(calibration, photos_root),
            out,
            workspace,
            recipe,
            photo_source(validation, photos_root) if validation else None,
            labels,
            limit,
            seed,
            simulate_only,
        )
    show(result, json)
