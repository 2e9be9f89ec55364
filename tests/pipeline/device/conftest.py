"""A tiny library in place of a built one, and one emulated device of each kind for all tests."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import tvm_passes
from pipeline.device.emulator import EmulatedDevice, build_emulator, start_emulator
from pipeline.device.emulator_install import EmulatorInstall
from pipeline.device.session import Image, Logits
from pipeline.device.tracker import Address, start_tracker
from pipeline.errors import UserError

HEADERS = Path(tvm_passes.__file__).parent / "aot" / "runtime"
SOURCE = Path(__file__).with_name("tiny_model.c")
CLASSES = 10
Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def images() -> list[Image]:
    """Five random images, uint8 [1, 16, 16, 3]."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8) for _ in range(5)]


@pytest.fixture(scope="session")
def expected_logits(images: list[Image]) -> Logits:
    """What tiny_model.c computes, int32 [5, CLASSES]."""
    rows = []
    for image in images:
        sums = image.reshape(-1, 16).astype(np.int64).sum(axis=1) - 16 * 128
        chunk, klass = np.arange(len(sums)), np.arange(CLASSES)[:, None]
        rows.append((sums * ((chunk * 7 + klass * 3) % 11 - 5)).sum(axis=1) + np.arange(CLASSES))
    return np.array(rows, dtype=np.int32)


@pytest.fixture(scope="session")
def compile_host(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compiles tiny_model.c for this machine with the given macros."""
    return _compiler("cc", tmp_path_factory)


@pytest.fixture(scope="session")
def compile_arm(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compiles tiny_model.c for aarch64 with the given macros."""
    return _compiler("aarch64-linux-gnu-gcc", tmp_path_factory)


@pytest.fixture(scope="session")
def install() -> EmulatorInstall:
    """The emulator in the user's cache, built when it is not there."""
    for program in ("qemu-aarch64", "aarch64-linux-gnu-g++"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    try:
        return build_emulator()
    except UserError as error:
        pytest.skip(f"the emulator cannot be built here: {error}")


@pytest.fixture(scope="session")
def tracker() -> Iterator[Address]:
    """A running tracker."""
    with start_tracker() as address:
        yield address


@pytest.fixture(scope="session")
def old_phone(install: EmulatorInstall, tracker: Address) -> Iterator[EmulatedDevice]:
    """An emulated Cortex-A53 that counts instructions."""
    with start_emulator(install, "cortex-a53", "old", tracker, count_instructions=True) as device:
        yield device


@pytest.fixture(scope="session")
def new_phone(install: EmulatorInstall, tracker: Address) -> Iterator[EmulatedDevice]:
    """An emulated Cortex-A76, without counting."""
    with start_emulator(install, "cortex-a76", "new", tracker) as device:
        yield device


def _compiler(program: str, factory: pytest.TempPathFactory) -> Compile:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")

    def compile_model(*macros: str, options: tuple[str, ...] = ()) -> Path:
        target = factory.mktemp("library") / "lib.so"
        defines = [f"-D{macro}" for macro in macros]
        command = [program, "-O1", "-shared", "-fPIC", f"-I{HEADERS}", *options, *defines]
        subprocess.run([*command, str(SOURCE), "-o", str(target)], check=True)
        return target

    return compile_model
