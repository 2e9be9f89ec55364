"""Options that several verbs share."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.stages.workspace import Workspace

MODEL_PANEL = "Model"
DATA_PANEL = "Photos"

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="timm's name of the model, such as mobilevit_xxs; pocketvit models lists some.",
        show_default=False,
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Its weights: .safetensors, .pth, .pt or .bin.",
        rich_help_panel=MODEL_PANEL,
        show_default=False,
    ),
]
Calibration = Annotated[
    Path,
    typer.Option(
        metavar="DIR|LIST",
        help="Photos to choose ranges from, labels not needed: a folder, read recursively and "
        "drawn evenly from all subfolders, or a text file with one path per line.",
        rich_help_panel=DATA_PANEL,
        show_default=False,
    ),
]
VALIDATION_HELP = (
    "Photos to validate on, as DIR/CLASS/*, or a list of such. The label is, first match wins: "
    "what --labels says; the folder's name, when all are numbers; the class of the ImageNet "
    "synset, when all are synset ids and the model has the 1,000 ImageNet classes; the folder's "
    "alphabetical rank, when there are as many folders as classes."
)
PhotosRoot = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where relative paths of photo lists begin.",
        rich_help_panel=DATA_PANEL,
        show_default="the list's folder",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="One 'path class-index' or one class folder per line (.txt, .csv, .json).",
        rich_help_panel=DATA_PANEL,
        show_default=False,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Validate on so many photos only, evenly from all classes.",
        rich_help_panel=DATA_PANEL,
        show_default="all",
    ),
]
Seed = Annotated[
    int,
    typer.Option(help="Selects another draw of calibration photos.", rich_help_panel=DATA_PANEL),
]
Recipe = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="What is quantized to how many bits; pocketvit recipes lists the bundled ones.",
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help="What to build for, such as android-arm64 or aarch64-linux; repeatable. The library "
        "of this host is always built, because it validates.",
        show_default=False,
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Where to measure: host, emulated or emulated:CPU (cortex-a53, cortex-a76 or "
        "max,sve=off); repeatable.",
        show_default="host",
    ),
]
Tracker = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Measure on a device behind this TVM RPC tracker.",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Name of that device at the tracker.", show_default=False),
]
Runs = Annotated[int, typer.Option(min=1, help="Timed runs, on real hardware.")]
Warmup = Annotated[int, typer.Option(min=0, help="Runs before them that are not timed.")]
Threads = Annotated[
    int,
    typer.Option(
        min=0,
        help="The most threads that may work on one image, on real hardware; 0 leaves it to the "
        "library, which takes the big cores, four at most.",
    ),
]
DumpIr = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write the module after every pass to DIR, as TVMScript that runs.",
        show_default=False,
    ),
]
KernelConfig = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="Schedules of kernels, as kernels.json beside each library of an artifact holds them; "
        "repeatable, one file for each instruction set.",
        show_default=False,
    ),
]
Work = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        envvar="POCKETVIT_WORK",
        help="Cache of finished stages, by the hash of their inputs: an interrupted command goes "
        "on where it stopped. May be deleted at any time.",
        show_default="~/.cache/pocketvit/stages or the like",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@contextmanager
def workspace(verb: str, folder: Path | None) -> Iterator["Workspace"]:
    """The cache of a verb, with progress bars on standard error as long as the context lasts.

    Args:
        verb: module of `pipeline.verbs`; importing it takes seconds, during which a bar shows.
        folder: None for the default.
    """
    from pipeline.cli.progress import Bars

    with Bars() as reporter:
        with reporter.step("start"):
            import_module(f"pipeline.verbs.{verb}")
            from pipeline.stages.workspace import Workspace, default_workspace
        yield Workspace((folder or default_workspace()).absolute(), reporter)
