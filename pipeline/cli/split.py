"""pocketvit split."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options


def split(
    photos: Annotated[
        Path,
        typer.Argument(metavar="DIR|LIST", help="The photos to halve.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Where the lists a.txt and b.txt are written.", show_default=False
        ),
    ],
    photos_root: options.PhotosRoot = None,
    json: options.Json = False,
) -> None:
    """Halve a set of photos by the hash of their content, the same way on every machine.

    Calibrate on one list and validate on the other: --calibration a.txt --validation b.txt
    --photos-root DIR.
    """
    from pipeline.cli.progress import Bars
    from pipeline.cli.table import show
    from pipeline.data.source import photo_source
    from pipeline.verbs.split import split as run

    with Bars() as reporter:
        result = run(photo_source(photos, photos_root), out, reporter)
    show(result, json)
