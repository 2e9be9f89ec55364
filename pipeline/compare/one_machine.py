"""Cells in order, in this process."""

from collections.abc import Iterator, Sequence

from pipeline.compare.cell import Cell, CellResult
from pipeline.compare.run_cell import run_cell
from pipeline.stages.workspace import Workspace


def on_one_machine(
    cells: Sequence[Cell], workspace: Workspace
) -> Iterator[tuple[Cell, CellResult]]:
    """Compute cells one after the other.

    Args:
        cells: what to do.
        workspace: caches the stages, so that methods share what does not depend on them.

    Yields:
        Each cell with its result, as soon as it is there.
    """
    for cell in cells:
        with workspace.reporter.step(str(cell)):
            result = run_cell(cell, workspace)
        yield cell, result
