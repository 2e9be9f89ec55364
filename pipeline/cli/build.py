"""pocketvit build."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options


def build(
    quantized: Annotated[
        Path,
        typer.Argument(
            metavar="QUANTIZED", help="What pocketvit quantize wrote.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="The artifact; an older one is replaced.", show_default=False
        ),
    ],
    target: options.Targets = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The float model's weights, if they are no longer where they were.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Class names, one a line.",
            show_default="those in the checkpoint, or class indices",
        ),
    ] = None,
    kernel_config: options.KernelConfig = None,
    dump_ir: options.DumpIr = None,
    work: options.Work = None,
    json: options.Json = False,
) -> None:
    """Build libraries of a quantized model, one per target."""
    with options.workspace("build", work) as workspace:
        from pipeline.cli.table import show
        from pipeline.verbs.build import build as run

        result = run(
            quantized,
            target or (),
            out,
            workspace,
            checkpoint,
            labels,
            dump_ir,
            kernel_config or (),
        )
    show(result, json)
