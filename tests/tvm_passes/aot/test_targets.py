"""Which targets there are, and the compilers behind them."""

from pathlib import Path

import pytest
from tvm import IRModule

from tvm_passes.aot import TARGETS, build_library, resolve_target, targets
from tvm_passes.errors import LoweringError

from .conftest import INFO


@pytest.mark.parametrize(
    ("machine", "flags", "name"),
    [
        ("x86_64", targets.CPU_FEATURES["avx512vnni"], "x86-64-avx512vnni"),
        ("x86_64", ("avx2", "bmi2", "fma", "avx512f"), "x86-64-avx2"),
        ("x86_64", (), "x86-64"),
        ("aarch64", ("asimddp", "asimdrdm", "i8mm"), "aarch64-linux-i8mm"),
        ("aarch64", ("asimddp", "asimdrdm"), "aarch64-linux"),
        ("aarch64", ("asimdrdm",), "aarch64-linux-neon"),
        ("aarch64", (), "aarch64-linux-neon"),
    ],
)
def test_the_host_is_the_best_target_that_its_cpu_runs(
    machine: str, flags: tuple[str, ...], name: str
) -> None:
    assert targets.host_target(machine, frozenset(flags)) == name


def test_an_unknown_target_is_answered_with_the_known_ones() -> None:
    with pytest.raises(LoweringError, match="choose one of host, x86-64"):
        resolve_target("sparc")


@pytest.mark.parametrize("spec", TARGETS.values(), ids=TARGETS)
def test_tvm_knows_every_target(spec: targets.TargetSpec) -> None:
    assert str(spec.tvm_target(cores=4).attrs["mtriple"]) == spec.triple


def test_a_missing_compiler_is_named(
    network: IRModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LoweringError, match="gcc is not installed"):
        build_library(network, resolve_target("x86-64"), INFO, tmp_path / "lib.so")


def test_the_ndk_compiles_android_libraries_where_it_is_installed(
    network: IRModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clang = tmp_path / "toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android24-clang"
    clang.parent.mkdir(parents=True)
    clang.write_text('#!/bin/sh\necho "clang was called with $*" >&2\nexit 1\n')
    clang.chmod(0o755)
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    with pytest.raises(LoweringError, match="clang was called with .*max-page-size=16384"):
        build_library(network, resolve_target("android-arm64"), INFO, tmp_path / "lib.so")


def test_a_wrong_ndk_folder_is_reported(
    network: IRModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    with pytest.raises(LoweringError, match="ANDROID_NDK_HOME"):
        build_library(network, resolve_target("android-arm64"), INFO, tmp_path / "lib.so")
