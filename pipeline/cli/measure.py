"""pocketvit measure."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.options import DATA_PANEL, VALIDATION_HELP


def measure(
    artifact: Annotated[
        Path,
        typer.Argument(
            metavar="ARTIFACT", help="What pocketvit deploy or build wrote.", show_default=False
        ),
    ],
    device: options.Devices = None,
    tracker: options.Tracker = None,
    key: options.Key = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Whose library to run.",
            show_default="the best that the device runs",
        ),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|LIST",
            help=f"{VALIDATION_HELP} Without it a few images of random pixels are run.",
            rich_help_panel=DATA_PANEL,
            show_default=False,
        ),
    ] = None,
    photos_root: options.PhotosRoot = None,
    labels: options.Labels = None,
    photos: Annotated[
        int,
        typer.Option(
            min=1,
            help="Photos to run on each device, evenly from all classes.",
            rich_help_panel=DATA_PANEL,
        ),
    ] = 16,
    runs: options.Runs = 30,
    warmup: options.Warmup = 5,
    threads: options.Threads = 0,
    work: options.Work = None,
    json: options.Json = False,
) -> None:
    """Measure an artifact on a device: speed, accuracy, and logits compared with this host's.

    Real hardware is timed (median, 10th and 90th percentile, after a warm-up). An emulated device
    says nothing about time; there, executed instructions by class are counted and cycles are
    estimated.
    """
    with options.workspace("measure", work) as workspace:
        from pipeline.cli.table import show
        from pipeline.data.source import photo_source
        from pipeline.verbs.choice import parse_devices
        from pipeline.verbs.measure import measure as run

        devices = parse_devices(device or (), tracker, key, threads)
        source = photo_source(validation, photos_root) if validation else None
        result = run(artifact, devices, workspace, source, labels, photos, runs, warmup, target)
    show(result, json)
