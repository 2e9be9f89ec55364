"""`compare`: methods of quantization on models, at several bits, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.compare.cell import Level, Subject
from pipeline.compare.cluster import on_cluster
from pipeline.compare.one_machine import on_one_machine
from pipeline.compare.report import write_report
from pipeline.compare.store import Store
from pipeline.compare.sweep import all_cells, sweep
from pipeline.compare.tables import Value, paired_table, result_table
from pipeline.files.staging import check_writable
from pipeline.stages.workspace import Workspace
from pipeline.verbs.result import CompareResult


@dataclass(frozen=True)
class CompareOptions:
    """What `compare` is to do.

    Attributes:
        subjects: the models with their photos.
        methods: names or paths of recipes; the others are compared with the first one.
        out: folder of the results, which goes on where it stopped.
        bits: each such as w8a8; none for the recipes' own.
        level: whose accuracy counts.
        seed: of the draw of calibration photos, and of the resampling.
        retry_failed: compute cells again that failed before.
        ray: address of a Ray cluster, or "local"; None to work in this process.
        ray_cpus: processors that a cell takes on the cluster.
    """

    subjects: Sequence[Subject]
    methods: Sequence[str]
    out: Path
    bits: Sequence[str] = ()
    level: Level = "simulated"
    seed: int = 0
    retry_failed: bool = False
    ray: str | None = None
    ray_cpus: float = 1


def compare(options: CompareOptions, workspace: Workspace) -> CompareResult:
    """Quantize every model by every method at every number of bits, and tell what came of it.

    A cell that fails is recorded with its reason and does not stop the others.

    Args:
        options: what to do.
        workspace: caches the stages.

    Raises:
        UserError: whatever is wrong with the input as a whole.
    """
    check_writable(options.out / "cells")
    cells = all_cells(options.subjects, options.methods, options.bits, options.level, options.seed)
    address, cpus = options.ray, options.ray_cpus
    results = sweep(
        cells,
        Store(options.out),
        lambda missing: (
            on_one_machine(missing, workspace)
            if address is None
            else on_cluster(missing, workspace, address, cpus)
        ),
        workspace.reporter,
        options.retry_failed,
    )
    table = result_table(results)
    files = write_report(table, paired_table(results, options.seed), options.out)
    plain: list[dict[str, Value]] = list(table.data)
    return CompareResult(
        columns=table.columns,
        rows=table.rows,
        cells=tuple(plain),
        failed=sum(result.error is not None for result in results),
        files=files,
    )
