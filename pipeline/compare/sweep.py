"""All cells of a comparison, and which of them are still to do."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.compare.cell import Cell, CellResult, Level, Subject
from pipeline.compare.store import Store
from pipeline.errors import UserError
from pipeline.progress import Reporter
from pipeline.quant.recipe import load_recipe

Runner = Callable[[Sequence[Cell]], Iterator[tuple[Cell, CellResult]]]
"""Yields every cell with its result."""

_BITS = re.compile(r"w\d+a\d+")


def all_cells(
    subjects: Sequence[Subject],
    methods: Sequence[str],
    bits: Sequence[str],
    level: Level,
    seed: int,
) -> list[Cell]:
    """Every model by every number of bits by every method, in this order.

    Args:
        subjects: the models.
        methods: names or paths of recipes.
        bits: each such as w8a8; none for the recipes' own.
        level: of the accuracy.
        seed: of the draw of calibration photos.

    Raises:
        UserError: there is no model or method, a recipe does not exist, or bits are misspelt.
    """
    if not subjects or not methods:
        raise UserError("There is nothing to compare; give --models and --methods.")
    for text in bits:
        if not _BITS.fullmatch(text):
            raise UserError(f"Bits {text!r} are not understood; write them like w8a8 or w4a4.")
    for method in methods:
        load_recipe(method)
    named = {method: Path(method) for method in methods}
    return [
        Cell(
            subject,
            path.stem if path.is_file() else method,
            str(path.absolute()) if path.is_file() else method,
            text,
            level,
            seed,
        )
        for subject in subjects
        for text in bits or ("",)
        for method, path in named.items()
    ]


def sweep(
    cells: Sequence[Cell], store: Store, run: Runner, reporter: Reporter, retry_failed: bool
) -> list[CellResult]:
    """Compute the cells that have no result yet, and keep each as soon as it is there.

    Args:
        cells: all of the comparison.
        store: where results are.
        run: computes cells.
        reporter: hears of every result.
        retry_failed: compute cells again that failed before.

    Returns:
        The results of all cells, in their order.
    """
    found: dict[Cell, CellResult] = {}
    for cell in cells:
        result = store.read(cell)
        if result is not None and not (retry_failed and result.error):
            found[cell] = result
    missing = [cell for cell in cells if cell not in found]
    reporter.note(f"{len(cells)} cells, {len(found)} done before.")
    if missing:
        for cell, result in run(missing):
            store.write(cell, result)
            found[cell] = result
            reporter.note(f"{cell}: {_describe(result)}")
    return [found[cell] for cell in cells]


def _describe(result: CellResult) -> str:
    if result.figures is None:
        return f"failed: {result.error}"
    return f"top-1 {result.figures.top1:.2%}, float {result.figures.float_top1:.2%}"
