"""From a cell to its figures, or to the reason why there are none."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.compare.run_cell import run_cell, sentence
from pipeline.errors import UserError
from pipeline.stages.workspace import Workspace

from ..cli.conftest import RECIPE


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("work"))


@pytest.mark.parametrize("level", ["simulated", "integer"])
def test_figures_agree_with_each_other(cell, workspace, level):
    result = run_cell(replace(cell, level=level), workspace)
    assert result.error is None
    found = result.figures
    assert (found.photos, found.calibration_photos) == (9, 6)
    assert found.top1 == pytest.approx(np.mean(found.hits))
    assert found.top1_difference == pytest.approx(found.top1 - found.float_top1)
    assert found.top1_low <= found.top1_difference <= found.top1_high
    assert len(found.noise) == 9 and found.sqnr_db > 15
    assert found.quantize_seconds > 0


def test_cached_figures_tell_the_time_of_the_real_work(cell, workspace):
    first, second = (run_cell(cell, workspace) for _ in range(2))
    assert first == second


def test_fewer_bits_are_noisier(cell, workspace):
    coarse, fine = (run_cell(replace(cell, bits=bits), workspace) for bits in ("w4a4", "w8a8"))
    assert coarse.figures.sqnr_db < fine.figures.sqnr_db - 10


def test_bad_input_is_recorded(cell, workspace):
    result = run_cell(replace(cell, bits="w9a9"), workspace)
    assert result.figures is None and "weights.bits = 9 is not allowed" in result.error


def test_what_cannot_be_built_is_not_calibrated(cell, workspace, tmp_path, monkeypatch):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f"paper = true\n{RECIPE}[softmax]\nformat = 'log2'\n")
    simulated = run_cell(replace(cell, recipe=str(recipe)), workspace)
    assert simulated.error is None
    monkeypatch.delattr("pipeline.compare.run_cell.quantize_stage")
    integer = run_cell(replace(cell, recipe=str(recipe), level="integer"), workspace)
    assert "softmax in 'log2, 8 bits and a zero' has no integer form" in integer.error


def test_calibration_photos_are_not_validated_on(cell, workspace):
    subject = replace(cell.subject, calibration=cell.subject.validation)
    result = run_cell(replace(cell, subject=subject), workspace)
    assert "9 validation photos are also calibration photos" in result.error


def test_a_defect_is_recorded_with_its_kind(cell, workspace, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero\nin some line")

    monkeypatch.setattr("pipeline.compare.run_cell.load_recipe", broken)
    assert run_cell(cell, workspace).error == "ZeroDivisionError: division by zero"


def test_sentences_of_errors():
    assert sentence(UserError("Do this.")) == "Do this."
    assert sentence(AssertionError()) == "AssertionError: no further words"
