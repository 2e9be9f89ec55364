"""The mirrored structures are those of TVM."""

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
import tvm_ffi

from tvm_passes.aot.toolchain import SOURCES

HERE = Path(__file__).parent
RUNTIME = Path(str(files("tvm_passes.aot"))) / "runtime"
HEADERS = Path(tvm_ffi.__file__).parent / "include"


@pytest.mark.parametrize("compiler", ["gcc", "aarch64-linux-gnu-gcc"])
def test_mirrors_agree_with_the_headers_of_tvm_ffi(compiler: str, tmp_path: Path) -> None:
    if not (HEADERS / "tvm/ffi/c_api.h").is_file():
        pytest.skip("tvm-ffi was installed without its headers")
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    command = [compiler, "-std=c11", f"-I{HEADERS}", f"-I{RUNTIME}", "-fsyntax-only"]
    done = subprocess.run([*command, HERE / "abi_check.c"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("source", [name for name in SOURCES if name.endswith(".c")])
def test_the_runtime_sources_compile_without_a_warning(source: str) -> None:
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]
    command = ["gcc", "-std=c11", "-D_GNU_SOURCE", *strict, "-fsyntax-only"]
    done = subprocess.run([*command, RUNTIME / source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_header_is_valid_c_plus_plus_and_c99(tmp_path: Path) -> None:
    for language, standard in (("c++", "c++11"), ("c", "c99")):
        command = ["gcc", "-x", language, f"-std={standard}", "-Wall", "-Werror", "-fsyntax-only"]
        done = subprocess.run([*command, RUNTIME / "pocketvit.h"], capture_output=True, text=True)
        if "cc1plus" in done.stderr:
            pytest.skip("g++ is not installed")
        assert done.returncode == 0, done.stderr
