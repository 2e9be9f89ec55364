"""sensitivity writes data and pictures, and a line for each layer."""

import csv
import json

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def study(run, inputs, tmp_path_factory):
    """A study of the tiny model in place of an older one: its folder and what was printed."""
    out = tmp_path_factory.mktemp("sensitivity") / "study"
    out.mkdir()
    for name in ("sensitivity.json", "left_over.csv"):
        (out / name).touch()
    names = ("checkpoint", "calibration", "validation", "recipe", "work")
    result = run("sensitivity", "test_vit", "--photos", 2, *inputs.options(*names), "--out", out)
    assert result.exit_code == 0, result.stderr
    return out, result.stdout


def test_data_and_pictures_are_written(study):
    out, _ = study
    names = {"sensitivity.json", "layers.csv", "ranges.csv"}
    pictures = {"sqnr.png", "sqnr.svg", "ranges.png", "ranges.svg"}
    assert {path.name for path in out.iterdir()} == names | pictures
    content = json.loads((out / "sensitivity.json").read_text())
    with (out / "layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [found["layer"]["name"] for found in content["layers"]]
    assert content["photos"] == 2 and len(content["ranges"]) > 10
    for kind in ("sqnr.png", "ranges.png"):
        with Image.open(out / kind) as picture:
            assert len(set(picture.convert("RGB").resize((60, 60)).tobytes())) > 10
    assert "<svg" in (out / "sqnr.svg").read_text()


def test_every_layer_has_a_line(study):
    out, printed = study
    content = json.loads((out / "sensitivity.json").read_text())
    lines = printed.splitlines()
    assert lines[0].startswith("test_vit, quick, 2 photos: logits ")
    for found, line in zip(content["layers"], lines[2:], strict=False):
        assert line.startswith(found["layer"]["module_path"]) and " dB" in line


def test_a_folder_of_something_else_is_refused(run, inputs, tmp_path):
    (tmp_path / "thesis.tex").touch()
    options = inputs.options("checkpoint", "calibration", "validation", "recipe", "work")
    result = run("sensitivity", "test_vit", *options, "--out", tmp_path)
    assert result.exit_code == 1 and "is no study of sensitivity" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
