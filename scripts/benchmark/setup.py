"""Make the peers' environments: ``python -m scripts.benchmark.setup [PEER...]``."""

from typing import Annotated

import typer

from scripts.benchmark.environments import Cache, make_environment
from scripts.benchmark.options import DEFAULT_CACHE, CacheOption, console, find_peers, run


def main(
    peers: Annotated[list[str] | None, typer.Argument(help="Which; all without.")] = None,
    cache: CacheOption = DEFAULT_CACHE,
) -> None:
    """Make every peer's own Python environment; quick when it is there already."""
    for peer in find_peers(peers or []):
        if not peer.packages:
            continue
        with console.status(f"{peer.name}: {', '.join(peer.packages)}"):
            made = make_environment(Cache(cache), peer)
        console.print(f"{peer.name}: {'made' if made else 'there already'}")


if __name__ == "__main__":
    run(main)
