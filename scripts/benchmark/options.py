"""Options that several of the scripts have."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import platformdirs
import typer
from rich.console import Console

from pipeline.errors import UserError
from scripts.benchmark.peers import PEERS, Peer
from tvm_passes.errors import LoweringError

DEFAULT_CACHE = platformdirs.user_cache_path("pocketvit") / "benchmark"

CacheOption = Annotated[Path, typer.Option(help="Folder of environments and converted networks.")]
PhotosOption = Annotated[
    Path | None,
    typer.Option(help="Folder of photos to calibrate on; random pixels without."),
]
JsonOption = Annotated[Path | None, typer.Option(help="File that receives the figures as JSON.")]

# Without a terminal Rich takes 80 columns, which are too few for the tables.
console = Console(width=None if sys.stdout.isatty() else 140)
errors = Console(stderr=True)


def find_peers(names: Sequence[str]) -> list[Peer]:
    """The named peers, or all.

    Raises:
        UserError: there is no such peer.
    """
    for name in names:
        if name not in PEERS:
            raise UserError(f"There is no peer '{name}'; there are: {', '.join(PEERS)}.")
    return [PEERS[name] for name in names or PEERS]


@contextmanager
def one_sentence() -> Iterator[None]:
    """End with the message alone where the user can mend what is wrong."""
    try:
        yield
    except (UserError, LoweringError) as error:
        errors.print(f"benchmark: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


def run(main: Callable[..., Any]) -> None:
    """Run a script's function as its command line."""
    with one_sentence():
        typer.run(main)
