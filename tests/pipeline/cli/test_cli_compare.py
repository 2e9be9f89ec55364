"""compare goes through models, methods and bits, and can be interrupted."""

import csv
import json

import pytest

import pipeline.verbs.compare as verb
from pipeline.compare.one_machine import on_one_machine


@pytest.fixture
def options(inputs):
    """A comparison of two numbers of bits, but for --out."""
    return [
        "compare", "--models", f"test_vit={inputs.checkpoint}", "--methods", inputs.recipe,
        "--bits", "w8a8,w4a4", *inputs.options("calibration", "validation", "work"),
    ]  # fmt: skip


def test_every_cell_is_in_the_tables(run, options, inputs, tmp_path):
    out = tmp_path / "out"
    result = run(*options, "--methods", "w8a8-int8", "--out", out, "--json")
    assert result.exit_code == 1  # 32 calibration photos are more than there are
    cells = json.loads(result.stdout)["cells"]
    assert [(cell["method"], cell["bits"]) for cell in cells] == [
        ("quick", "w8a8"), ("w8a8-int8", "w8a8"), ("quick", "w4a4"), ("w8a8-int8", "w4a4"),
    ]  # fmt: skip
    assert cells[0]["top1_low"] <= cells[0]["top1_difference"] <= cells[0]["top1_high"]
    assert cells[0]["photos"] == 12 and cells[0]["error"] is None
    assert "6 usable photos where 32 are needed" in cells[1]["error"]
    assert result.stderr.splitlines()[-1].startswith("pocketvit: 2 of 4 cells failed")
    assert len(list((out / "cells").glob("*.json"))) == 4
    with (out / "comparison.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    assert "6 usable photos" in (out / "comparison.md").read_text()
    assert "<table>" in (out / "comparison.html").read_text()


def test_an_interrupted_comparison_goes_on(run, options, tmp_path, monkeypatch):
    def stopped(cells, workspace):
        yield next(iter(on_one_machine(cells, workspace)))
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(verb, "on_one_machine", stopped)
        result = run(*options, "--out", out)
    assert result.exit_code == 130
    assert len(list((out / "cells").iterdir())) == 1
    resumed = run(*options, "--out", out)
    assert resumed.exit_code == 0, resumed.stderr
    assert "2 cells, 1 done before." in resumed.stderr
    assert resumed.stdout.count("test_vit") == 2
    again = run(*options, "--out", out)
    assert "2 cells, 2 done before." in again.stderr and "quantize" not in again.stderr


def test_the_integer_library_can_be_compared(deployed, run, options, tmp_path):
    without_bits = [option for option in options if option not in ("--bits", "w8a8,w4a4")]
    result = run(*without_bits, "--level", "integer", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    (cell,) = json.loads(result.stdout)["cells"]
    figures = deployed["accuracy"]["integer_vs_float"]
    assert (cell["level"], cell["bits"]) == ("integer", "")
    assert cell["sqnr_db"] == pytest.approx(figures["sqnr_db"])
    assert cell["agreement"] == figures["agreement"]
    assert "evaluate integer" in result.stderr


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--bits", "8"], "Bits '8' are not understood"),
        (["--methods", "nothing"], "no recipe 'nothing'"),
        (["--calibration", "nowhere"], "calibration photos nowhere"),
        (["--models", "list.toml"], "model list list.toml cannot be read"),
        (["--models", "vit=w.pth"], "w.pth of vit does not exist"),
    ],
)
def test_bad_input_is_one_sentence(run, options, tmp_path, changed, message):
    result = run(*options, *changed, "--out", tmp_path / "out")
    assert result.exit_code == 1 and result.stdout == ""
    said = [line for line in result.stderr.splitlines() if line.startswith("pocketvit: ")]
    assert said == result.stderr.splitlines()[-1:] and message in said[0]
    assert not (tmp_path / "out").exists()
