"""pocketvit compare."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli import options
from pipeline.cli.groups import expand
from pipeline.cli.model import ModelSettings
from pipeline.cli.options import DATA_PANEL, MODEL_PANEL, VALIDATION_HELP

RAY_PANEL = "Ray cluster"


@expand
def compare(
    models: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[=CHECKPOINT]|LIST",
            help="timm's name, with a checkpoint where it has one; or a list of models with "
            "options of their own, in a .toml or .csv file. Separated by commas; repeatable.",
            rich_help_panel=MODEL_PANEL,
            show_default=False,
        ),
    ],
    methods: Annotated[
        list[str],
        typer.Option(
            metavar="NAME|FILE",
            help="Recipes, separated by commas; repeatable. Differences between methods are told "
            "against the first one.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="The results: a file per cell, and tables as Markdown, CSV and HTML.",
            show_default=False,
        ),
    ],
    *,
    bits: Annotated[
        list[str] | None,
        typer.Option(
            metavar="wXaY",
            help="Bits of weights and activations, separated by commas; repeatable.",
            show_default="the recipes' own",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|LIST",
            help="Photos to choose ranges from, of models that have none of their own.",
            rich_help_panel=DATA_PANEL,
            show_default=False,
        ),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|LIST",
            help=f"The same: {VALIDATION_HELP}",
            rich_help_panel=DATA_PANEL,
            show_default=False,
        ),
    ] = None,
    photos_root: options.PhotosRoot = None,
    labels: options.Labels = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    settings: ModelSettings,
    level: Annotated[
        Literal["simulated", "integer"],
        typer.Option(
            help="Whose accuracy counts: the simulation's, or that of the integer library, which "
            "is built for this host."
        ),
    ] = "simulated",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed before.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Work on this Ray cluster, or with 'local' on one that is started here; needs "
            "pocketvit[ray]. Files must be at the same paths on all machines.",
            rich_help_panel=RAY_PANEL,
            show_default=False,
        ),
    ] = None,
    ray_cpus: Annotated[
        float,
        typer.Option(
            min=0.1, help="Processors that each cell takes there.", rich_help_panel=RAY_PANEL
        ),
    ] = 1,
    work: options.Work = None,
    json: options.Json = False,
) -> None:
    """Compare methods of quantization: every model by every method at every number of bits.

    Can be interrupted at any moment: the same command goes on where it stopped. What cannot be
    computed is recorded with its reason and does not stop the rest; the exit status is then 1.
    """
    with options.workspace("compare", work) as workspace:
        from pipeline.cli.table import show
        from pipeline.compare.models import parse_models, subjects
        from pipeline.verbs.compare import CompareOptions
        from pipeline.verbs.compare import compare as run

        common = asdict(settings) | {
            "calibration": calibration,
            "validation": validation,
            "photos_root": photos_root,
            "labels": labels,
            "limit": limit,
        }
        todo = CompareOptions(
            subjects=subjects(parse_models(_items(models), common)),
            methods=_items(methods),
            out=out,
            bits=_items(bits or []),
            level=level,
            seed=seed,
            retry_failed=retry_failed,
            ray=ray,
            ray_cpus=ray_cpus,
        )
        result = run(todo, workspace)
    show(result, json)


def _items(values: list[str]) -> list[str]:
    """The parts of values that are separated by commas, each once."""
    parts = (part.strip() for value in values for part in value.split(","))
    return list(dict.fromkeys(part for part in parts if part))
