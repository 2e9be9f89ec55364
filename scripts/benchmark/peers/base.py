"""What a peer is, and the registry of peers.

This package is imported in every peer's own environment: nothing but NumPy may be imported outside
of functions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmark.source import Source

Run = Callable[[], object]  # one inference
INTEGER = "int8"  # variants that begin like this compute their products in int8


@dataclass(frozen=True)
class Job:
    """One variant of one peer for one network.

    Attributes:
        source: the float network.
        variant: of the peer's variants.
        folder: what `Peer.prepare` wrote.
        threads: that an inference may use.
    """

    source: Source
    variant: str
    folder: Path
    threads: int = 1


@dataclass(frozen=True)
class Peer:
    """A runtime.

    Attributes:
        name: what the user types and reads.
        variants: precisions and settings.
        prepare: converts the network and writes the result into the job's empty folder.
        load: makes the network ready to run on the source's first image.
        packages: pip requirements of its environment, installed one after the other; none means
            it runs in ours.
        device_packages: what it needs on an ARM device; none means it does not run there.
        device_variants: those that run there.
        keep: whether what `prepare` wrote serves again.
    """

    name: str
    variants: tuple[str, ...]
    prepare: Callable[[Job], None]
    load: Callable[[Job], Run]
    packages: tuple[str, ...] = ()
    device_packages: tuple[str, ...] = ()
    device_variants: tuple[str, ...] = ()
    keep: bool = True


PEERS: dict[str, Peer] = {}


def register(peer: Peer) -> Peer:
    """Make a peer known."""
    PEERS[peer.name] = peer
    return peer
