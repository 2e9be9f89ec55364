"""Executed instructions and estimated cycles of every contestant on emulated ARM CPUs."""

from collections.abc import Iterator
from typing import Annotated

import typer

from pipeline.device import EMULATED_CPUS
from pipeline.device.cycles import DEFAULT_CORES
from pipeline.errors import UserError
from scripts.benchmark.contestants import prepare
from scripts.benchmark.costs import DeviceRow, cost_of
from scripts.benchmark.device_report import device_table
from scripts.benchmark.emulated import count_ours, count_peer
from scripts.benchmark.environments import Cache
from scripts.benchmark.export import export
from scripts.benchmark.networks import CONV_NET, DEFAULT_NETWORKS
from scripts.benchmark.options import (
    DEFAULT_CACHE,
    CacheOption,
    JsonOption,
    PhotosOption,
    console,
    find_peers,
    run,
)
from scripts.benchmark.peers import Peer
from scripts.benchmark.report import write_json
from scripts.benchmark.source import Source
from scripts.benchmark.statistics import OURS
from tvm_passes.errors import LoweringError

DEFAULT_CPUS = ("cortex-a76", "max,sve=off")


def main(
    networks: Annotated[
        list[str] | None,
        typer.Argument(help=f"timm models, or {CONV_NET}; it and five hybrids without."),
    ] = None,
    peer: Annotated[list[str] | None, typer.Option(help="Only this peer; repeatable.")] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="Only this variant; repeatable.")
    ] = None,
    cpu: Annotated[list[str] | None, typer.Option(help="Emulated CPU; repeatable.")] = None,
    photos: PhotosOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    json: JsonOption = None,
) -> None:
    """Count on emulated CPUs; cycles are estimated and say nothing about milliseconds."""
    cpus = cpu or list(DEFAULT_CPUS)
    for name in cpus:
        if name not in EMULATED_CPUS:
            raise UserError(f"There is no CPU '{name}'; there are: {'; '.join(EMULATED_CPUS)}.")
    chosen = choose(find_peers(peer or []), variant or [])
    results: list[DeviceRow] = []
    for network in networks or (*DEFAULT_NETWORKS, CONV_NET):
        with console.status(f"{network}: export"):
            source = export(network, Cache(cache).sources, photos)
        rows = list(measure(source, chosen, cpus, Cache(cache)))
        console.print(device_table(network, source.facts["macs"], rows))
        results += rows
        if json:
            write_json(json, "arm", {"cpus": cpus, "cores": list(DEFAULT_CORES)}, results)


def choose(peers: list[Peer], variants: list[str]) -> list[tuple[Peer, str]]:
    """Peers with those of their variants that run on a device.

    Args:
        peers: to choose from.
        variants: only these; all when empty.

    Raises:
        UserError: none is left.
    """
    all_pairs = [(peer, variant) for peer in peers for variant in peer.device_variants]
    chosen = [(peer, variant) for peer, variant in all_pairs if variant in (variants or [variant])]
    if not chosen:
        known = (
            ", ".join(f"{peer.name} {variant}" for peer, variant in all_pairs) or "none of these"
        )
        raise UserError(f"No such contestant runs on a device; there are: {known}.")
    return chosen


def measure(
    source: Source, contestants: list[tuple[Peer, str]], cpus: list[str], cache: Cache
) -> Iterator[DeviceRow]:
    """Every contestant on every CPU."""
    for peer, variant in contestants:
        for cpu in cpus:
            with console.status(f"{source.facts['name']}: {peer.name} {variant} on {cpu}"):
                yield _row(cache, source, peer, variant, cpu)


def _row(cache: Cache, source: Source, peer: Peer, variant: str, cpu: str) -> DeviceRow:
    network, name = source.facts["name"], f"{peer.name} {variant}"
    try:
        if peer.name == OURS:
            profile = count_ours(source, variant, cpu)
        else:
            profile = count_peer(cache, prepare(cache, peer, variant, source), cpu)
        return DeviceRow(network, cpu, name, cost_of(profile, DEFAULT_CORES))
    except (UserError, LoweringError) as error:
        return DeviceRow(network, cpu, name, None, str(error))


if __name__ == "__main__":
    run(main)
