"""Bad input: one clear sentence, a non-zero exit, nothing half-written."""

import errno
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from .conftest import Inputs, write_photos


def empty_folder(inputs: Inputs, tmp: Path) -> list[str]:
    (tmp / "empty").mkdir()
    return ["--calibration", str(tmp / "empty")]


def too_few_photos(inputs: Inputs, tmp: Path) -> list[str]:
    shutil.copytree(inputs.calibration, tmp / "few")
    (tmp / "few" / "red" / "0.png").write_bytes(b"")
    (tmp / "few" / "red" / "1.png").write_bytes(b"no image")
    return ["--calibration", str(tmp / "few")]


def shared_photo(inputs: Inputs, tmp: Path) -> list[str]:
    shutil.copytree(inputs.calibration, tmp / "shared")
    shutil.copy(inputs.validation / "red" / "0.png", tmp / "shared" / "renamed.png")
    return ["--calibration", str(tmp / "shared")]


def other_classes(inputs: Inputs, tmp: Path) -> list[str]:
    shutil.copytree(inputs.validation / "red", tmp / "validation" / "red")
    return ["--validation", str(tmp / "validation")]


def other_keys(inputs: Inputs, tmp: Path) -> list[str]:
    tensors = load_file(inputs.checkpoint)
    tensors["head.gamma"] = tensors.pop("head.bias")
    save_file(tensors, tmp / "renamed.safetensors")
    return ["--checkpoint", str(tmp / "renamed.safetensors"), "--input-size", "32"]


def bits_out_of_range(inputs: Inputs, tmp: Path) -> list[str]:
    (tmp / "bad.toml").write_text("[weights]\nbits = 9\n")
    return ["--recipe", str(tmp / "bad.toml")]


def formats_of_a_paper(inputs: Inputs, tmp: Path) -> list[str]:
    (tmp / "mine.toml").write_text("paper = true\n[softmax]\nformat = 'log2'\n")
    return ["--recipe", str(tmp / "mine.toml")]


def occupied_output(inputs: Inputs, tmp: Path) -> list[str]:
    (tmp / "thesis").mkdir()
    (tmp / "thesis" / "thesis.tex").touch()
    return ["--out", str(tmp / "thesis")]


CASES: dict[str, tuple[Callable[[Inputs, Path], list[str]], str]] = {
    "missing calibration folder": (lambda i, t: ["--calibration", "nowhere"], "does not exist"),
    "empty calibration folder": (empty_folder, "holds no photo"),
    "too few photos": (
        too_few_photos,
        r"4 usable photos where 6 are needed \(skipped 2 files: 1 .*, 1 ",
    ),
    "shared photo": (shared_photo, r"1 validation photos are also .*renamed\.png"),
    "other classes": (other_classes, "1 class folders .* 3 classes"),
    "other number of classes": (lambda i, t: ["--num-classes", "5"], "has 3 classes but 5"),
    "other keys": (other_keys, r"missing \(head\.bias\).* unexpected \(head\.gamma\)"),
    "unknown recipe": (lambda i, t: ["--recipe", "w8a9"], "did you mean w8a8"),
    "bits out of range": (bits_out_of_range, "weights.bits = 9"),
    "formats of a paper": (
        formats_of_a_paper,
        r"mine can only be simulated: softmax in 'log2, 8 bits and a zero' has no integer form",
    ),
    "unknown target": (lambda i, t: ["--target", "ios"], "no target 'ios'.*android-arm64"),
    "unknown device": (lambda i, t: ["--device", "phone"], "no device 'phone'"),
    "unknown emulated CPU": (lambda i, t: ["--device", "emulated:z80"], "cortex-a76"),
    "key without tracker": (lambda i, t: ["--key", "pixel"], "give both"),
    "silent tracker": (
        lambda i, t: ["--tracker", "127.0.0.1:9", "--key", "p", "--target", "android-arm64"],
        "127.0.0.1:9 does not answer",
    ),
    "occupied output": (occupied_output, "is no artifact"),
    "unwritable output": (lambda i, t: ["--out", "/proc/nothing"], "cannot be written"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_sentence(case, run, deploy_options, inputs, tmp_path):
    prepare, message = CASES[case]
    options = ["--out", str(tmp_path / "out"), *prepare(inputs, tmp_path)]
    before = sorted(tmp_path.rglob("*"))
    result = run(*deploy_options, *options)
    assert result.exit_code == 1
    assert result.stdout == ""
    said = [line for line in result.stderr.splitlines() if line.startswith("pocketvit: ")]
    assert said == result.stderr.splitlines()[-1:]
    assert re.search(message, said[0])
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unknown_model_is_answered_with_near_names(run, inputs, tmp_path):
    options = inputs.options("checkpoint", "calibration", "validation", "work")
    result = run("deploy", "test_vitt", *options, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "test_vit" in result.stderr.split("did you mean")[1]


def test_bad_photos_are_skipped_and_counted(deployed, run, deploy_options, inputs, tmp_path):
    write_photos(tmp_path / "photos", seed=5, count=1)
    red = tmp_path / "photos" / "red"
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(red / "grey.png")
    Image.fromarray(np.zeros((40, 40, 4), np.uint8), "CMYK").save(red / "cmyk.jpg")
    (red / "empty.jpg").touch()
    (red / "cut.png").write_bytes((red / "0.png").read_bytes()[:200])
    result = run(
        "quantize",
        *deploy_options[1:],
        "--validation",
        tmp_path / "photos",
        "--out",
        tmp_path / "q",
    )
    assert result.exit_code == 0, result.stderr
    assert "7 of 7 photos are labelled. Skipped 2 files: 1 " in result.stderr


def test_a_changed_artifact_is_refused(deployed, run, artifact, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    (copy / "labels.txt").write_text("a\nb\nc\n")
    result = run("measure", copy)
    assert result.exit_code == 1 and "labels.txt is not the file" in result.stderr


def test_a_device_that_dies_is_reported_and_the_artifact_stays(
    emulator, deployed, run, deploy_options, tmp_path, monkeypatch
):
    """The library is one that the old CPU cannot run: the device's process ends on it."""
    monkeypatch.setattr(
        "pipeline.verbs.choice.EMULATED_TARGETS", {"cortex-a53": ("aarch64-linux",)}
    )
    options = ["--device", "emulated:cortex-a53", "--out", str(tmp_path / "out")]
    result = run(*deploy_options, *options)
    assert result.exit_code == 1
    assert "CPU lacks" in result.stderr.splitlines()[-1]
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_a_full_disk_is_one_sentence(deployed, run, deploy_options, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.stages.logits.np.save", full)
    result = run(*deploy_options, "--limit", 5, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_disk_too_full_to_build_on_is_noticed_before_the_compiler_is(
    deployed, run, deploy_options, tmp_path, monkeypatch
):
    monkeypatch.setattr("pipeline.stages.build.SPACE", 1 << 60)
    result = run(*deploy_options, "--target", "x86-64", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "No space left" in result.stderr.splitlines()[-1]


def test_quantized_models_of_other_weights_are_not_built(deployed, run, inputs, tmp_path):
    options = inputs.options("checkpoint", "calibration", "recipe", "work")
    run("quantize", "test_vit", *options, "--out", tmp_path / "q")
    tensors = load_file(inputs.checkpoint)
    tensors["head.bias"] = tensors["head.bias"] + 1
    save_file(tensors, tmp_path / "other.safetensors", {"pocketvit.input_size": "32"})
    result = run(
        "build", tmp_path / "q", "--checkpoint", tmp_path / "other.safetensors",
        "--out", tmp_path / "a", "--work", tmp_path / "work",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "other weights or settings than those of" in result.stderr.splitlines()[-1]


def test_formats_of_a_paper_are_simulated_on_demand_and_never_built(run, inputs, tmp_path):
    recipe = formats_of_a_paper(inputs, tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text("calibration_images = 6\n" + path.read_text())
    options = [*inputs.options("checkpoint", "calibration", "work"), *recipe]
    refused = run("quantize", "test_vit", *options, "--out", tmp_path / "q")
    assert refused.exit_code == 1 and "--simulate-only" in refused.stderr
    assert not (tmp_path / "q").exists()
    allowed = run("quantize", "test_vit", *options, "--simulate-only", "--out", tmp_path / "q")
    assert allowed.exit_code == 0, allowed.stderr
    built = run("build", tmp_path / "q", "--out", tmp_path / "a", *inputs.options("work"))
    assert built.exit_code == 1 and "can only be simulated" in built.stderr.splitlines()[-1]


def test_usage_errors_are_left_to_the_parser(run):
    assert run("deploy").exit_code == 2
    assert run("frobnicate").exit_code == 2
