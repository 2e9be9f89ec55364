"""split writes two lists, and the other verbs take them."""

import json
import shutil

import pytest


@pytest.fixture
def mixed(inputs, tmp_path):
    """All photos of the tiny model in one folder."""
    for name in ("calibration", "validation"):
        for path in getattr(inputs, name).rglob("*.png"):
            target = tmp_path / "mixed" / path.parent.name / f"{name}{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return tmp_path / "mixed"


def test_halves_serve_as_calibration_and_validation(run, inputs, mixed, tmp_path):
    result = run("split", mixed, "--out", tmp_path / "lists", "--json")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    assert content["photos"] == [9, 9]
    a, b = content["lists"]
    lists = ["--calibration", a, "--validation", b, "--photos-root", mixed]
    options = inputs.options("checkpoint", "recipe", "work")
    quantized = run("quantize", "test_vit", *options, *lists, "--out", tmp_path / "q", "--json")
    assert quantized.exit_code == 0, quantized.stderr
    assert json.loads(quantized.stdout)["accuracy"]["photos"] == 9


def test_lists_that_share_a_photo_are_refused(run, inputs, mixed, tmp_path):
    run("split", mixed, "--out", tmp_path / "lists")
    a, b = tmp_path / "lists/a.txt", tmp_path / "lists/b.txt"
    with b.open("a") as file:
        file.write(a.read_text().splitlines()[-1] + "\n")
    lists = ["--calibration", a, "--validation", b, "--photos-root", mixed]
    options = inputs.options("checkpoint", "recipe", "work")
    result = run("quantize", "test_vit", *options, *lists, "--out", tmp_path / "q")
    assert result.exit_code == 1
    assert "1 validation photos are also calibration photos" in result.stderr


def test_without_the_root_the_missing_photo_is_named(run, inputs, mixed, tmp_path):
    run("split", mixed, "--out", tmp_path / "lists")
    options = inputs.options("checkpoint", "recipe", "work", "validation")
    a = tmp_path / "lists/a.txt"
    result = run("quantize", "test_vit", *options, "--calibration", a, "--out", tmp_path / "q")
    assert result.exit_code == 1 and "--photos-root" in result.stderr.splitlines()[-1]


def test_one_photo_cannot_be_halved(run, inputs, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(inputs.validation / "red" / "0.png", tmp_path / "photos" / name)
    result = run("split", tmp_path / "photos", "--out", tmp_path / "lists")
    assert result.exit_code == 1 and "same content" in result.stderr
    assert not (tmp_path / "lists").exists()
