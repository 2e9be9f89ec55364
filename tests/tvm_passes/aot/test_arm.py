"""The ARM libraries under emulation, through the C interface."""

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from .conftest import CLASSES, Build

SYSROOT = Path("/usr/aarch64-linux-gnu")
MODERN = "max,sve=off,sme=off"

pytestmark = pytest.mark.skipif(
    not (shutil.which("qemu-aarch64") and shutil.which("aarch64-linux-gnu-gcc")),
    reason="qemu-aarch64 or aarch64-linux-gnu-gcc is not installed",
)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ARM program that runs images through a library."""
    program = tmp_path_factory.mktemp("runner") / "run_images"
    headers = files("tvm_passes.aot").joinpath("runtime")
    source = Path(__file__).parent / "run_images.c"
    command: list[str | Path] = [
        "aarch64-linux-gnu-gcc",
        "-O1",
        f"-I{headers}",
        source,
        "-o",
        program,
        "-ldl",
    ]
    subprocess.run(command, check=True)
    return program


def emulate(
    runner: Path, library: Path, cpu: str, images: NDArray[np.uint8], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run the images; the logits go to ``folder/logits``."""
    images.tofile(folder / "images")
    for name in ("libc.so", "libm.so"):  # what Android calls libc.so.6 and libm.so.6
        (folder / name).symlink_to(SYSROOT / "lib" / f"{name}.6")
    command: list[str | Path] = ["qemu-aarch64", "-cpu", cpu, "-L", SYSROOT]
    command += ["-E", f"LD_LIBRARY_PATH={folder}"]
    command += [runner, library, folder / "images", folder / "logits"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("target", "cpu"),
    [
        ("aarch64-linux", "cortex-a76"),
        ("aarch64-linux-neon", "cortex-a53"),
        ("aarch64-linux-i8mm", MODERN),
        ("android-arm64", "cortex-a76"),
        ("android-arm64-neon", "cortex-a53"),
    ],
)
def test_logits_equal_the_host(
    target: str,
    cpu: str,
    runner: Path,
    build: Build,
    images: NDArray[np.uint8],
    expected: NDArray[np.int32],
    tmp_path: Path,
) -> None:
    done = emulate(runner, build(target)[0], cpu, images, tmp_path)
    assert done.returncode == 0, done.stderr
    logits = np.fromfile(tmp_path / "logits", np.int32).reshape(-1, 1, CLASSES)
    np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize(
    ("target", "cpu", "feature"),
    [
        ("aarch64-linux", "cortex-a53", "asimddp"),
        ("android-arm64-i8mm", "cortex-a76", "i8mm"),
    ],
)
def test_a_cpu_that_lacks_a_feature_is_told_so(
    target: str,
    cpu: str,
    feature: str,
    runner: Path,
    build: Build,
    images: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    done = emulate(runner, build(target)[0], cpu, images, tmp_path)
    assert done.returncode == 3
    assert f"lacks {feature}" in done.stderr
