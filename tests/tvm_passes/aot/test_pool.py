"""The thread pool by itself, and inside libraries, under the compiler's sanitizers too."""

import shutil
import subprocess
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tvm import IRModule

from tvm_passes.aot import build_library, library, resolve_target
from tvm_passes.aot.targets import TargetSpec
from tvm_passes.aot.toolchain import SOURCES, compile_library

from .conftest import INFO

HERE = Path(__file__).parent
RUNTIME = Path(str(files("tvm_passes.aot"))) / "runtime"
SANITIZERS = ["thread", "address,undefined"]
ARM_COMPILER = "aarch64-linux-gnu-gcc"
EMULATE = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")

needs_emulator = pytest.mark.skipif(
    not (shutil.which(EMULATE[0]) and shutil.which(ARM_COMPILER)),
    reason=f"{EMULATE[0]} or {ARM_COMPILER} is not installed",
)


def compile_c(sources: Sequence[str | Path], out: Path, *flags: str, compiler: str = "gcc") -> Path:
    """A program, or with ``-shared`` a library."""
    warnings = ("-Wall", "-Wextra", "-Werror")
    command = [compiler, "-std=c11", "-D_GNU_SOURCE", "-O1", "-g", *warnings, f"-I{RUNTIME}"]
    done = subprocess.run(
        [*command, *flags, *sources, "-o", out, "-ldl", "-lpthread"],
        capture_output=True,
        text=True,
    )
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip(f"the compiler has no library for {flags}")
    assert done.returncode == 0, done.stderr
    return out


def execute(*command: str | Path) -> None:
    """Run a program that reports a violation by its status, and a sanitizer by its own."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stderr[-4000:])


POOL = [HERE / "pool_check.c", RUNTIME / "pool.c", RUNTIME / "cores.c"]


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_parallel_loops_run_every_task_once(sanitizer: str, threads: int, tmp_path: Path) -> None:
    program = compile_c(POOL, tmp_path / "check", f"-fsanitize={sanitizer}")
    execute(program, str(threads), "10")


@needs_emulator
def test_parallel_loops_run_on_emulated_arm(tmp_path: Path) -> None:
    program = compile_c(POOL, tmp_path / "check", compiler=ARM_COMPILER)
    execute(*EMULATE, program, "3", "10")


@pytest.fixture
def generated(network: IRModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the driver, parameters and kernels of the network for x86-64."""
    kept = tmp_path / "generated"

    def keep(target: TargetSpec, work: Path, out: Path) -> None:
        shutil.copytree(work, kept)
        compile_library(target, work, out)

    monkeypatch.setattr(library, "compile_library", keep)
    build_library(network, resolve_target("x86-64"), INFO, tmp_path / "unused.so")
    return kept


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_handles_share_nothing_whatever_their_threads(
    sanitizer: str,
    generated: Path,
    images: NDArray[np.uint8],
    expected: NDArray[np.int32],
    tmp_path: Path,
) -> None:
    sources = [generated / "driver.c", generated / "kernels.o"]
    sources += [RUNTIME / source for source in SOURCES]
    flags = (f"-fsanitize={sanitizer}", f"-Wa,-I{generated}")
    shared = compile_c(sources, tmp_path / "lib.so", *flags, "-shared", "-fPIC")
    program = compile_c([HERE / "run_threads.c"], tmp_path / "run", f"-fsanitize={sanitizer}")
    images.tofile(tmp_path / "images")
    expected.tofile(tmp_path / "logits")
    execute(program, shared, tmp_path / "images", tmp_path / "logits")
