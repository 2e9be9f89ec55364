"""Milliseconds of every contestant on this machine, side by side in one run."""

import os
import platform
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UserError
from scripts.benchmark.contestants import Contestant, Entry, prepare, start_on_host
from scripts.benchmark.environments import Cache
from scripts.benchmark.export import export
from scripts.benchmark.networks import DEFAULT_NETWORKS
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
from scripts.benchmark.peers.peak import peak_macs
from scripts.benchmark.report import comparison_table, write_json
from scripts.benchmark.rounds import run_rounds
from scripts.benchmark.statistics import Comparison, compare, summarize

PEAK = "peak int8"


def main(
    networks: Annotated[
        list[str] | None, typer.Argument(help="timm models; five hybrids without.")
    ] = None,
    peer: Annotated[list[str] | None, typer.Option(help="Only this peer; repeatable.")] = None,
    rounds: Annotated[int, typer.Option(help="Turns of every contestant.", min=1)] = 7,
    turn: Annotated[float, typer.Option(help="Seconds of a turn, about.")] = 0.4,
    threads: Annotated[int, typer.Option(help="Of every contestant.", min=1)] = 1,
    cores: Annotated[
        str, typer.Option(help="Cores to pin to, as in 0,1; the last ones without.")
    ] = "",
    busy: Annotated[
        bool,
        typer.Option(help="Others use the machine: count each process's own time (one thread)."),
    ] = False,
    photos: PhotosOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    json: JsonOption = None,
) -> None:
    """Compare the contestants on networks with random weights."""
    pinned = choose_cores(cores, threads)
    if busy and threads > 1:
        raise UserError("The time of a process means something for one thread only; drop --busy.")
    clock = "cpu" if busy else "time"
    peers = find_peers(peer or [])
    results = []
    for name in networks or DEFAULT_NETWORKS:
        found = measure(name, peers, Cache(cache), photos, rounds, turn, threads, pinned, clock)
        console.print(comparison_table(found))
        results.append(found)
        if json:
            machine = {
                "cpu": cpu_name(),
                "threads": threads,
                "cores": pinned,
                "clock": clock,
            }
            write_json(json, "host", machine, results)


def measure(
    name: str,
    peers: list[Peer],
    cache: Cache,
    photos: Path | None,
    rounds: int,
    turn: float,
    threads: int,
    cores: list[int],
    clock: str,
) -> Comparison:
    """Prepare all peers for a network, start them, and time them in turns.

    Raises:
        UserError: there is no such network, or a worker ended amidst the measurement.
    """
    with console.status(f"{name}: export") as status:
        source = export(name, cache.sources, photos)
        problems: dict[str, str] = {}
        entries: list[Entry] = []
        for peer in peers:
            for variant in peer.variants:
                status.update(f"{name}: prepare {peer.name} {variant}")
                try:
                    entries.append(prepare(cache, peer, variant, source))
                except UserError as error:
                    problems[f"{peer.name} {variant}"] = str(error)
        with ExitStack() as stack:
            running: dict[str, Contestant] = {}
            for entry in entries:
                status.update(f"{name}: start {entry.name}")
                try:
                    worker = stack.enter_context(start_on_host(cache, entry, threads, cores))
                    running[entry.name] = worker
                except UserError as error:
                    problems[entry.name] = str(error)
            if not running:
                raise UserError("; ".join(f"{key}: {text}" for key, text in problems.items()))
            times = run_rounds(
                running, rounds, turn, clock, lambda now: status.update(f"{name}: measure {now}")
            )
    summaries = {contestant: summarize(each) for contestant, each in times.items()}
    peak = None
    if best := summaries.pop(PEAK, None):
        folder = next(entry.folder for entry in entries if entry.name == PEAK)
        peak = threads * peak_macs(folder) / best.median_ms / 1e6
    problems.pop(PEAK, None)
    return compare(name, source.facts["macs"], summaries, problems, peak)


def cpu_name() -> str:
    """What the kernel calls this CPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def choose_cores(text: str, threads: int) -> list[int]:
    """The cores that every contestant is pinned to.

    Args:
        text: numbers with commas; empty for the last ones that this process may use.
        threads: how many are needed.

    Raises:
        UserError: there are too few, or the text says something else.
    """
    allowed = sorted(os.sched_getaffinity(0))
    try:
        chosen = [int(part) for part in text.split(",")] if text else allowed[-threads:]
    except ValueError as error:
        raise UserError(f"Cores are numbers with commas, as in 0,1; not '{text}'.") from error
    if len(chosen) < threads or not set(chosen) <= set(allowed):
        raise UserError(
            f"{threads} threads need as many of the cores {allowed}; {chosen} were chosen."
        )
    return chosen


if __name__ == "__main__":
    run(main)
