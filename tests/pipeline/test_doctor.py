"""What the doctor finds and recommends."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline import doctor
from pipeline.doctor import Check, check_version, run_checks


@pytest.mark.parametrize(
    ("package", "found", "ok"),
    [
        ("apache-tvm", "0.27.0.post1", True),
        ("apache-tvm", "0.26.0", False),
        ("apache-tvm-ffi", "0.1.14.post1", True),
        ("apache-tvm-ffi", "0.1.15.post2", False),
        ("apache-tvm-ffi", "0.1.14.post10", False),
        ("torch", "2.13.0+cpu", True),
        ("torch", "2.4.1", False),
        ("timm", "0.9.16", False),
        ("psutil", "1", True),
    ],
)
def test_versions_that_work(package: str, found: str, ok: bool) -> None:
    assert check_version(package, found).ok == ok


def test_wrong_version_comes_with_the_command_that_mends_it() -> None:
    check = check_version("apache-tvm-ffi", "0.1.15.post2")
    assert "crash" in check.detail
    assert check.fix.endswith('-m pip install "apache-tvm-ffi==0.1.14.post1"')


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.WORKING_VERSIONS, "pocketvit-nothing", ("", "", "it is needed"))
    check = check_version("pocketvit-nothing")
    assert not check.ok and check.detail == "not installed; it is needed"


def test_missing_programs_name_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert doctor.check_qemu().fix == "apt-get install qemu-user"
    assert doctor.check_llvm("llvm-mca").fix == "apt-get install llvm-22"
    assert doctor.check_adb().fix == "apt-get install adb"
    for program, package, purpose in doctor.PROGRAMS:
        check = doctor.check_program(program, package, purpose)
        assert not check.ok and check.fix == f"apt-get install {package}"


def test_emulator_that_is_not_built(tmp_path: Path) -> None:
    check = doctor.check_emulator(tmp_path)
    assert not check.ok and "build_emulator()" in check.fix


def test_tracker_without_tornado(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "tornado" else object())
    check = doctor.check_tracker()
    assert not check.ok and check.detail == "without tornado" and "apache-tvm[rpc]" in check.fix


def test_ndk_is_found_by_either_variable(tmp_path: Path) -> None:
    compiler = tmp_path / "ndk" / "27.1" / "toolchains/llvm/prebuilt/linux-x86_64/bin/clang"
    compiler.parent.mkdir(parents=True)
    compiler.touch()
    ndk = str(tmp_path / "ndk" / "27.1")
    assert doctor.check_ndk({"ANDROID_NDK_HOME": ndk}) == Check("Android NDK", True, ndk)
    assert doctor.check_ndk({"ANDROID_HOME": str(tmp_path)}).detail == ndk
    assert not doctor.check_ndk({"ANDROID_NDK_HOME": str(tmp_path)}).ok


@pytest.mark.parametrize(
    ("requirement", "torch", "ok"),
    [
        ("torch (==2.13.0)", "2.13.0", True),
        ("torch==2.13.0", "2.13.0+cpu", True),
        ("torch==2.12.1", "2.13.0+cpu", False),
        ("torch", "2.13.0", True),
    ],
)
def test_torchvision_must_be_made_for_the_same_torch(
    requirement: str, torch: str, ok: bool
) -> None:
    assert doctor.check_torchvision(["numpy", requirement], torch).ok == ok


def test_import_that_crashes_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], -11, "", "")

    monkeypatch.setattr(subprocess, "run", crash)
    check = doctor.check_llvm_targets()
    assert not check.ok and "status -11" in check.detail and "apache-tvm" in check.fix


def test_every_failed_check_says_how_to_mend_it() -> None:
    checks = run_checks(android=True)
    assert len({check.name for check in checks}) == len(checks)
    assert all(bool(check.fix) != check.ok for check in checks)
    assert {"adb", "Android NDK"} <= {check.name for check in checks}
