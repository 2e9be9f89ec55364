"""A sweep computes what is missing, and nothing twice."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compare import store as store_module
from pipeline.compare.cell import Cell, CellResult, Figures
from pipeline.compare.store import Store
from pipeline.compare.sweep import all_cells, sweep
from pipeline.errors import UserError
from pipeline.progress import Silent


class Fake:
    """A runner that remembers what it was asked for, and may die in the middle."""

    def __init__(self, figures: Figures, dies_at: str = "", fails_at: str = "") -> None:
        self.figures, self.dies_at, self.fails_at = figures, dies_at, fails_at
        self.asked: list[str] = []

    def __call__(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, CellResult]]:
        for cell in cells:
            if cell.bits == self.dies_at:
                raise KeyboardInterrupt
            self.asked.append(cell.bits)
            if cell.bits == self.fails_at:
                yield cell, CellResult.failed(cell, "there is no such thing.")
            else:
                yield cell, CellResult.of(cell, self.figures)


@pytest.fixture
def cells(cell: Cell) -> list[Cell]:
    return [replace(cell, bits=bits) for bits in ("w8a8", "w6a6", "w4a4")]


def run(cells: list[Cell], folder: Path, fake: Fake, retry: bool = False) -> list[CellResult]:
    return sweep(cells, Store(folder), fake, Silent(), retry)


def test_a_killed_sweep_goes_on_where_it_stopped(cells, tmp_path, figures):
    with pytest.raises(KeyboardInterrupt):
        run(cells, tmp_path, Fake(figures, dies_at="w4a4"))
    second = Fake(figures)
    results = run(cells, tmp_path, second)
    assert second.asked == ["w4a4"]
    assert [result.bits for result in results] == ["w8a8", "w6a6", "w4a4"]
    assert all(result.figures == figures for result in results)


def test_a_failed_cell_stops_nothing_and_is_tried_again_on_demand(cells, tmp_path, figures):
    results = run(cells, tmp_path, Fake(figures, fails_at="w6a6"))
    assert [result.error for result in results] == [None, "there is no such thing.", None]
    again, retried = Fake(figures), Fake(figures)
    assert run(cells, tmp_path, again)[1].error and again.asked == []
    assert run(cells, tmp_path, retried, retry=True)[1].error is None
    assert retried.asked == ["w6a6"]


def test_results_in_files_are_what_was_found(cell, tmp_path, figures):
    store = Store(tmp_path)
    for result in (CellResult.of(cell, figures), CellResult.failed(cell, "no.")):
        store.write(cell, result)
        assert store.read(cell) == result
    assert [path.name for path in (tmp_path / "cells").iterdir()] == [store.path(cell).name]


def test_a_damaged_file_counts_as_missing(cell, tmp_path, figures):
    store = Store(tmp_path)
    store.write(cell, CellResult.of(cell, figures))
    path = store.path(cell)
    path.write_text(path.read_text()[:100])
    assert store.read(cell) is None


def test_other_inputs_have_other_files(cell, tmp_path, recipe, monkeypatch):
    others = [
        replace(cell, bits="w4a4"),
        replace(cell, bits="w99a99"),  # such a recipe does not exist: the cell will say so
        replace(cell, recipe="w8a8"),
        replace(cell, level="integer"),
        replace(cell, seed=1),
        replace(cell, subject=replace(cell.subject, limit=3)),
        replace(cell, subject=replace(cell.subject, calibration=cell.subject.validation)),
        replace(cell, subject=replace(cell.subject, spec=replace(cell.subject.spec, crop_pct=0.5))),
    ]
    paths = [Store(tmp_path).path(other) for other in (cell, *others)]
    monkeypatch.setattr(store_module, "code_version", lambda stage: "tomorrow")
    paths.append(Store(tmp_path).path(cell))
    assert len(set(paths)) == len(paths)


def test_cells_are_models_by_bits_by_methods(subject, recipe):
    cells = all_cells([subject], ["w8a8", str(recipe)], ["w8a8", "w4a4"], "simulated", 3)
    names = ["w8a8:w8a8", f"{recipe}:w8a8", "w8a8:w4a4", f"{recipe}:w4a4"]
    assert [cell.recipe_name for cell in cells] == names
    assert str(cells[1]) == "vit quick w8a8"
    assert all(cell.seed == 3 for cell in cells)


def test_without_bits_recipes_keep_theirs(subject):
    (cell,) = all_cells([subject], ["w4a8"], [], "simulated", 0)
    assert cell.recipe_name == "w4a8"


@pytest.mark.parametrize(
    ("methods", "bits", "message"),
    [
        ([], ["w8a8"], "nothing to compare"),
        (["w8a9"], ["w8a8"], "no recipe 'w8a9'"),
        (["w8a8"], ["8"], "Bits '8' are not understood"),
    ],
)
def test_wrong_arguments_are_one_sentence(subject, methods, bits, message):
    with pytest.raises(UserError, match=message):
        all_cells([subject], methods, bits, "simulated", 0)
