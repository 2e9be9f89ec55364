"""deploy does it all, resumes, and its stages are commands too."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

import pipeline.verbs.deploy as deploy_module
from pipeline.artifact import read_artifact
from pipeline.device import HostDevice
from tvm_passes.pipeline import LOWERING

STAGES = ("check validation photos", "quantize", "lower", "build for", "evaluate simulated")


def told(stderr: str, stage: str) -> str:
    """The last word of the line about a stage."""
    return next(line for line in stderr.splitlines() if line.startswith(stage)).split()[-1]


def test_the_integers_of_host_and_reference_are_the_same(deployed):
    assert deployed["reference"] == {"photos": 3, "differing": 0}


def test_the_levels_of_truth_are_close(deployed):
    accuracy = deployed["accuracy"]
    assert accuracy["photos"] == 12
    assert accuracy["integer_vs_simulated"]["sqnr_db"] > 25
    assert accuracy["integer_vs_float"]["sqnr_db"] > 15
    assert accuracy["integer_vs_float"]["agreement"] >= 10 / 12


def test_the_labelling_rule_is_told(deployed):
    assert "alphabetical ranks" in deployed["accuracy"]["labels"]


def test_formats_of_all_roles_are_in_the_result(deployed):
    formats = {line["role"]: line["format"] for line in deployed["formats"]}
    assert formats["weight"] == "int8" and formats["output"] == "int32"


def test_the_artifact_is_whole_and_its_library_runs(deployed, artifact):
    read = read_artifact(artifact)
    assert read.labels == ("blue", "green", "red")
    (library,) = deployed["libraries"]
    program = HostDevice().load(Path(library["path"]), classes=3)
    assert program.run(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 3)
    stored = json.loads((artifact / "accuracy.json").read_text())
    assert stored == deployed["accuracy"]


def test_data_movement_is_in_the_result_and_in_the_manifest(deployed, artifact):
    before, after = deployed["movement"]["before"], deployed["movement"]["after"]
    assert before["operators"] > after["operators"] > 0
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert manifest["model"]["movement"] == deployed["movement"]


def test_a_second_run_uses_every_stage_again(deployed, run, deploy_options, tmp_path):
    result = run(*deploy_options, "--out", tmp_path / "again", "--json")
    assert {stage: told(result.stderr, stage) for stage in STAGES} == dict.fromkeys(
        STAGES, "cached"
    )
    assert json.loads(result.stdout)["accuracy"] == deployed["accuracy"]


def test_an_interrupted_run_goes_on_where_it_stopped(
    deployed, run, deploy_options, inputs, tmp_path, monkeypatch
):
    options = [*deploy_options, "--seed", 1, "--work", tmp_path / "work", "--out", tmp_path / "out"]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.stages.build.build_library", interrupt)
        stopped = run(*options)
    assert stopped.exit_code == 130
    assert "interrupted; run the same command again to resume" in stopped.stderr
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "work").glob(".*"))
    resumed = run(*options)
    assert resumed.exit_code == 0
    assert told(resumed.stderr, "lower") == "cached" != told(resumed.stderr, "build for")


def test_another_recipe_keeps_the_float_logits(deployed, run, deploy_options, inputs, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(inputs.recipe.read_text() + "bits = 7\n")
    result = run("quantize", *deploy_options[1:], "--recipe", other, "--out", tmp_path / "q")
    assert told(result.stderr, "evaluate float") == "cached" != told(result.stderr, "quantize")


def test_quantize_and_build_give_what_deploy_gives(deployed, run, inputs, artifact, tmp_path):
    options = inputs.options("checkpoint", "calibration", "recipe", "work")
    result = run("quantize", "test_vit", *options, "--out", tmp_path / "quantized")
    assert "quantized model" in result.stdout
    built = run("build", tmp_path / "quantized", "--out", tmp_path / "a", *inputs.options("work"))
    assert built.exit_code == 0, built.stderr
    assert told(built.stderr, "build for") == "cached"
    assert f"{deployed['movement']['before']['operators']} operators" in built.stdout
    ours, theirs = (read_artifact(path).manifest for path in (tmp_path / "a", artifact))
    library = next(iter(theirs.libraries.values())).file
    assert ours.files[library] == theirs.files[library]
    assert ours.model == theirs.model


def test_every_phase_is_dumped_and_runs(deployed, run, deploy_options, tmp_path):
    dump = tmp_path / "ir"
    run(*deploy_options, "--out", tmp_path / "a", "--dump-ir", dump)
    names = [path.stem.partition("_")[2] for path in sorted(dump.iterdir())]
    assert names[: len(LOWERING)] == [phase.name for phase in LOWERING]
    assert names[len(LOWERING)].startswith("select_kernels")
    module = runpy.run_path(str(dump / "00_take_pixels.py"))["Module"]
    assert "main" in {name.name_hint for name in module.functions}


def test_an_emulated_device_agrees_and_shows_no_time(
    emulator, deployed, run, deploy_options, tmp_path
):
    options = ["--device", "emulated:cortex-a53", "--device-photos", 2]
    result = run(*deploy_options, "--out", tmp_path / "a", *options)
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if "emulated cortex-a53" in line]
    assert any("2 of 2 images bit-identical" in line for line in lines)
    assert any("cycles" in line and "estimated" in line for line in lines)
    assert not any(" ms" in line for line in lines)
    assert "library, aarch64-linux-neon" in result.stdout


def test_measuring_an_artifact_needs_no_photos(deployed, run, artifact, inputs):
    result = run("measure", artifact, "--runs", 3, *inputs.options("work"))
    assert result.exit_code == 0, result.stderr
    assert " ms (p10" in result.stdout and "3 runs" in result.stdout


def test_measuring_with_photos_reports_accuracy(deployed, run, artifact, inputs):
    options = inputs.options("validation", "work")
    result = run("measure", artifact, "--photos", 6, "--runs", 1, *options, "--json")
    (measurement,) = json.loads(result.stdout)["measurements"]
    assert measurement["labelled"] == 6 and measurement["top1"] is not None


def test_logits_that_differ_are_an_error(
    deployed, run, deploy_options, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    honest = deploy_module.reference_logits
    monkeypatch.setattr(deploy_module, "reference_logits", lambda *args: honest(*args) + 1)
    result = run(*deploy_options, "--out", tmp_path / "a", "--device-photos", 2)
    assert result.exit_code == 1
    assert "NumPy reference differ on 2 of 2 photos" in result.stderr
