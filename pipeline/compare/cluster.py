"""Cells as tasks of a Ray cluster; Ray is an optional extra, `pip install pocketvit[ray]`.

Photos, checkpoints and recipes must be at the same paths on all machines.
"""

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.compare.cell import Cell, CellResult
from pipeline.compare.run_cell import run_cell, sentence
from pipeline.errors import UserError
from pipeline.stages.workspace import Workspace

LOCAL = "local"
_PATIENCE = 5.0  # seconds
RETRIES = 3  # of a cell whose worker died


def on_cluster(
    cells: Sequence[Cell], workspace: Workspace, address: str, cpus: float = 1
) -> Iterator[tuple[Cell, CellResult]]:
    """Compute cells as tasks, as many at once as there are processors for.

    A task whose worker dies is done again by another one.

    Args:
        cells: what to do.
        workspace: its folder, on every machine its own or a shared one, caches the stages.
        address: of a running cluster, or "local" to start one here, as long as the work lasts.
        cpus: processors that a cell takes; torch uses so many threads.

    Yields:
        Each cell with its result, in the order in which they are finished.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    ray = _ray()
    _connect(ray, address)
    try:
        task = ray.remote(num_cpus=cpus, max_retries=RETRIES)(_run)
        running = {task.remote(cell, workspace.folder): cell for cell in cells}
        with workspace.reporter.step("cells on the cluster", len(cells)) as step:
            while running:
                (reference,), _ = ray.wait(list(running))
                cell = running.pop(reference)
                yield cell, _result(ray, reference, cell)
                step.advance(len(cells) - len(running))
    finally:
        ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to others
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed; run pip install 'pocketvit[ray]'.") from None
    return ray


def _connect(ray: Any, address: str) -> None:
    try:
        _probe(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError, TimeoutError) as error:  # ConnectionError is OSError
        raise UserError(
            f"No Ray cluster answers at {address} ({sentence(error)}); start one with ray start "
            f"--head, or use {LOCAL}."
        ) from error


def _probe(address: str) -> None:
    """Knock at an address; Ray itself would try for minutes.

    Raises:
        OSError: nobody answers.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), _PATIENCE).close()


def _run(cell: Cell, work: Path) -> CellResult:
    return run_cell(cell, Workspace(work))


def _result(ray: Any, reference: Any, cell: Cell) -> CellResult:
    try:
        result: CellResult = ray.get(reference)
    except ray.exceptions.RayError as error:
        return CellResult.failed(cell, f"the worker failed {RETRIES + 1} times: {sentence(error)}")
    return result
