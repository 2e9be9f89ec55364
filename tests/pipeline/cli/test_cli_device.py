"""An emulated device in one process, measured from another."""

import json
import os
import signal
import subprocess
import sys

import pytest

EMULATE = "from pipeline.cli.main import main; main()"


@pytest.fixture
def emulated(emulator):
    """A running `pocketvit device emulate`, and what it printed."""
    command = [sys.executable, "-c", EMULATE, "device", "emulate", "--cpu", "cortex-a53", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def test_it_is_measured_through_its_tracker_and_ends_when_told(
    deployed, emulated, run, inputs, tmp_path
):
    process, address = emulated
    options = inputs.options("checkpoint", "calibration", "recipe", "work")
    run("quantize", "test_vit", *options, "--out", tmp_path / "q")
    targets = ["--target", "aarch64-linux", "--target", "aarch64-linux-neon"]
    build = run("build", tmp_path / "q", *targets, "--out", tmp_path / "a", "--work", inputs.work)
    assert build.exit_code == 0, build.stderr
    result = run("measure", tmp_path / "a", "--tracker", address["tracker"], "--key", "emulated")
    assert result.exit_code == 0, result.stderr
    assert "emulated cortex-a53 = host" in result.stdout
    assert "4 of 4 images bit-identical" in result.stdout
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=20) == 0
