"""The C example of the documentation, compiled and run against an artifact."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.artifact import Artifact

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "classify.c"
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
Run = Callable[[bytes], subprocess.CompletedProcess[str]]


@pytest.fixture(params=["x86-64", "aarch64-linux"])
def classify(request: pytest.FixtureRequest, write: Callable[..., Artifact], tmp_path: Path) -> Run:
    """Function that runs the compiled example on the bytes of an image."""
    compiler, emulator = "gcc", []
    if request.param == "aarch64-linux":
        compiler = "aarch64-linux-gnu-gcc"
        emulator = ["qemu-aarch64", "-cpu", "cortex-a76", "-L", "/usr/aarch64-linux-gnu"]
    for tool in (compiler, *emulator[:1]):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    artifact = write()
    folder, program = artifact.library(request.param).parent, tmp_path / "classify"
    link = [f"-I{artifact.path / 'include'}", f"-L{folder}", "-lpocketvit_colours"]
    link += [f"-Wl,-rpath,{folder}", "-o", str(program)]
    subprocess.run([compiler, *STRICT, EXAMPLE, *link], check=True)

    def run(image: bytes) -> subprocess.CompletedProcess[str]:
        (tmp_path / "image.rgb").write_bytes(image)
        command = [*emulator, program, tmp_path / "image.rgb"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    return run


@pytest.mark.parametrize("label", [0, 1, 2])
def test_it_prints_the_best_class(label: int, classify: Run) -> None:
    pixel = bytes(200 if channel == label else 10 for channel in range(3))
    done = classify(16 * pixel)
    assert done.stdout == f"colours: class {label}, logit {16 * 200 * 0.5:.4f}\n"
    assert done.returncode == 0


def test_it_says_what_is_wrong_with_a_short_file(classify: Run) -> None:
    done = classify(b"short")
    assert done.returncode == 1
    assert "is too short" in done.stderr


def test_it_stays_an_example() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60
