"""Cells as Ray tasks; needs the extra pocketvit[ray]."""

import os
import signal
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.compare import cluster
from pipeline.compare.cell import Cell, CellResult
from pipeline.compare.cluster import on_cluster
from pipeline.compare.run_cell import run_cell
from pipeline.errors import UserError
from pipeline.stages.workspace import Workspace

with_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named(cell, tmp_path):
    with pytest.raises(UserError, match=r"pip install 'pocketvit\[ray\]'"):
        next(on_cluster([cell], Workspace(tmp_path), "local"))


@with_ray
def test_no_cluster_is_one_sentence(cell, tmp_path):
    with pytest.raises(UserError, match=r"No Ray cluster answers at 127\.0\.0\.1:9 "):
        next(on_cluster([cell], Workspace(tmp_path), "127.0.0.1:9"))


def die_once(cell: Cell, work: Path) -> CellResult:
    """Kill the own worker, as a lost machine would, when it is the first to get here."""
    try:
        (work / cell.bits).mkdir(parents=True)
    except FileExistsError:
        return run_cell(cell, Workspace(work))
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("the process is dead")


@with_ray
def test_a_cell_whose_worker_dies_is_done_by_another(cell, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_run", die_once)
    cells = [replace(cell, bits=bits) for bits in ("w8a8", "w9a9")]
    found = dict(on_cluster(cells, Workspace(tmp_path / "cluster"), "local"))
    died = sorted(path.name for path in (tmp_path / "cluster").glob("w?a?"))
    assert died == ["w8a8", "w9a9"]
    for one in cells:
        alone = run_cell(one, Workspace(tmp_path / "alone"))
        assert found[one].error == alone.error
        if alone.figures is not None:
            same = {"quantize_seconds": 0.0}
            assert found[one].figures.model_copy(update=same) == alone.figures.model_copy(
                update=same
            )


def die_always(cell: Cell, work: Path) -> CellResult:
    """Kill the own worker."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("the process is dead")


@with_ray
def test_a_cell_that_kills_every_worker_fails_alone(cell, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_run", die_always)
    monkeypatch.setattr(cluster, "RETRIES", 1)
    ((_, result),) = on_cluster([cell], Workspace(tmp_path), "local")
    assert result.error.startswith("the worker failed 2 times: WorkerCrashedError")
