"""pocketvit deploy."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.groups import expand
from pipeline.cli.model import ModelSettings
from pipeline.cli.options import DATA_PANEL, VALIDATION_HELP


@expand
def deploy(
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
            help="The artifact: libraries, header, class names, manifest. An older one is replaced "
            "in one step.",
            show_default=False,
        ),
    ],
    *,
    checkpoint: options.Checkpoint = None,
    settings: ModelSettings,
    recipe: options.Recipe = "pocket",
    target: options.Targets = None,
    device: options.Devices = None,
    tracker: options.Tracker = None,
    key: options.Key = None,
    photos_root: options.PhotosRoot = None,
    labels: options.Labels = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device_photos: Annotated[
        int, typer.Option(min=1, help="Photos to run on each device and in the NumPy reference.")
    ] = 16,
    runs: options.Runs = 30,
    warmup: options.Warmup = 5,
    threads: options.Threads = 0,
    kernel_config: options.KernelConfig = None,
    dump_ir: options.DumpIr = None,
    work: options.Work = None,
    json: options.Json = False,
) -> None:
    """Quantize, build, validate and measure a model, all in one.

    Writes an artifact with one library per target, and prints the accuracy of the float model, of
    the simulation and of the integer library on the same photos, the speed on each device, and
    whether all logits are bit-identical. Can be interrupted at any moment: the same command goes
    on where it stopped.
    """
    with options.workspace("deploy", work) as workspace:
        from pipeline.cli.table import show
        from pipeline.data.source import photo_source
        from pipeline.verbs.choice import parse_devices
        from pipeline.verbs.deploy import DeployOptions
        from pipeline.verbs.deploy import deploy as run

        todo = DeployOptions(
            calibration=photo_source(calibration, photos_root),
            validation=photo_source(validation, photos_root),
            out=out,
            recipe=recipe,
            targets=tuple(target or ()),
            devices=parse_devices(device or (), tracker, key, threads),
            labels_file=labels,
            limit=limit,
            seed=seed,
            device_photos=device_photos,
            runs=runs,
            warmup=warmup,
            dump=dump_ir,
            kernel_configs=tuple(kernel_config or ()),
        )
        result = run(settings.spec(model, checkpoint), todo, workspace)
    show(result, json)
