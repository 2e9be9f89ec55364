"""Is this machine ready? Every prerequisite, whether it is met, and the command that mends it."""

import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from pipeline.device.emulator import QEMU, counting_problem
from pipeline.device.emulator_install import installed_emulator
from pipeline.device.llvm import find_llvm_tool
from pipeline.errors import UserError

PROBE_SECONDS = 60.0

# What is known to work. Others may; these are tested together.
WORKING_VERSIONS = {
    "apache-tvm": (r"0\.27\.", "0.27.0.post1", ""),
    "apache-tvm-ffi": (r"0\.1\.14\.post1$", "0.1.14.post1", "newer ones crash MetaSchedule"),
    "torch": (r"2\.(1[3-9]|[2-9]\d)", "2.13.0", ""),
    "timm": (r"1\.0\.", "1.0.31", ""),
    "psutil": (r"", "", "MetaSchedule and RPC need it"),
    "tornado": (r"", "", "the RPC tracker needs it"),
    "cloudpickle": (r"", "", "the RPC tracker needs it"),
}

# (program, Debian package, what for)
PROGRAMS = (
    ("cc", "gcc", "links the library of this host"),
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "links libraries for ARM"),
    ("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu", "builds the emulated device"),
)

# TVM can crash the interpreter that imports it, hence one of its own.
LLVM_TARGETS = """
import tvm
from tvm.target.codegen import llvm_get_targets
targets = set(map(str, llvm_get_targets()))
print(" ".join(sorted(targets & {"aarch64", "x86_64"})))
"""
TORCH_PIN = re.compile(r"torch\s*\(?==([\d.]+)")


@dataclass(frozen=True)
class Check:
    """One prerequisite.

    Attributes:
        name: what is checked.
        ok: whether it is met.
        detail: what was found.
        fix: command or action that mends it; empty when `ok`.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""


def run_checks(android: bool = False, cache_dir: Path | None = None) -> list[Check]:
    """Check everything; takes a few seconds, most of them for importing TVM.

    Args:
        android: also check what building for and measuring on Android phones needs.
        cache_dir: where the emulator is kept; None for the user's cache directory.
    """
    checks = [check_version(package) for package in WORKING_VERSIONS]
    checks += [check_torchvision(), check_llvm_targets()]
    checks += [check_program(*program) for program in PROGRAMS]
    checks += [check_qemu(), check_llvm("llvm-mc"), check_llvm("llvm-mca")]
    checks += [check_emulator(cache_dir), check_tracker()]
    if android:
        checks += [check_adb(), check_ndk(os.environ)]
    return checks


def check_version(package: str, installed: str | None = None) -> Check:
    """Whether a package has a version that works.

    Args:
        package: key of `WORKING_VERSIONS`.
        installed: the version to judge; None for the one installed.
    """
    pattern, best, reason = WORKING_VERSIONS[package]
    pin = f"=={best}" if best else ""
    fix = f'{sys.executable} -m pip install "{package}{pin}"'
    try:
        found = installed or version(package)
    except PackageNotFoundError:
        return Check(package, False, f"not installed{'; ' * bool(reason)}{reason}", fix)
    if re.match(pattern, found):
        return Check(package, True, found)
    return Check(package, False, f"{found}{': ' * bool(reason)}{reason}", fix)


def check_llvm_targets() -> Check:
    """Whether TVM's LLVM can generate code for ARM and for this host."""
    name = "code generation of TVM"
    fix = f'{sys.executable} -m pip install --force-reinstall "apache-tvm==0.27.0.post1"'
    output, error = _probe(LLVM_TARGETS)
    if error:
        return Check(name, False, f"TVM cannot be imported: {error}", fix)
    missing = {"aarch64", "x86_64"} - set(output.split())
    if missing:
        return Check(name, False, f"no LLVM target {', '.join(sorted(missing))}", fix)
    return Check(name, True, output.replace(" ", ", "))


def check_torchvision(
    requirements: list[str] | None = None, torch_version: str | None = None
) -> Check:
    """Whether torchvision, which timm imports, is made for the installed torch.

    A build for the same release but another variant (CUDA beside CPU) only lacks two operators,
    which PocketViT declares itself; that is no failure.

    Args:
        requirements: of torchvision; None for those of the one installed.
        torch_version: None for the one installed.
    """
    fix = f"{sys.executable} -m pip install --force-reinstall torchvision"
    try:
        needed = requirements or requires("torchvision") or []
        found = torch_version or version("torch")
    except PackageNotFoundError as error:
        return Check("torchvision", False, f"{error.name} is not installed", fix)
    made_for = next((match[1] for text in needed if (match := TORCH_PIN.match(text))), None)
    if made_for is None or found.partition("+")[0] == made_for:
        return Check("torchvision", True, f"fits torch {found}")
    return Check("torchvision", False, f"made for torch {made_for}, not {found}", fix)


def check_program(program: str, package: str, purpose: str) -> Check:
    """Whether a program is on the PATH."""
    if path := shutil.which(program):
        return Check(program, True, path)
    return Check(program, False, f"not installed; it {purpose}", f"apt-get install {package}")


def check_qemu() -> Check:
    """Whether QEMU is there, and can load the plugin that counts instructions."""
    check = check_program(QEMU, "qemu-user", "emulates ARM devices")
    if check.ok and (problem := counting_problem(check.detail)):
        detail = f"{check.detail} cannot count instructions: {problem}"
        return Check(QEMU, False, detail, "apt-get install qemu-user")
    return check


def check_llvm(tool: str) -> Check:
    """Whether one of LLVM's tools is there and new enough."""
    try:
        return Check(tool, True, find_llvm_tool(tool))
    except UserError as error:
        detail = f"{str(error).partition(';')[0]}; it counts instructions and estimates cycles"
        return Check(tool, False, detail, "apt-get install llvm-22")


def check_emulator(cache_dir: Path | None = None) -> Check:
    """Whether the emulated device is built."""
    name = "emulated device"
    fix = f"{sys.executable} -c 'import pipeline.device as d; d.build_emulator()'"
    try:
        install = installed_emulator(cache_dir)
    except PackageNotFoundError as error:
        return Check(name, False, f"{error.name} is not installed", fix)
    if install is None:
        return Check(name, False, "not built yet; its first use builds it", fix)
    return Check(name, True, str(install.root))


def check_tracker() -> Check:
    """Whether the RPC tracker can start: its packages, and a TCP port of this host."""
    missing = [name for name in ("tvm", "tornado", "psutil", "cloudpickle") if not find_spec(name)]
    if missing:
        fix = f'{sys.executable} -m pip install "apache-tvm[rpc]==0.27.0.post1"'
        return Check("RPC tracker", False, f"without {', '.join(missing)}", fix)
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return Check("RPC tracker", True, "can start")
    except OSError as error:
        fix = "allow programs to listen on 127.0.0.1"
        return Check("RPC tracker", False, f"cannot listen on 127.0.0.1: {error.strerror}", fix)


def check_adb() -> Check:
    """Whether Android's debug bridge is there."""
    return check_program("adb", "adb", "installs and reaches the app on a phone")


def check_ndk(environment: "os._Environ[str] | dict[str, str]") -> Check:
    """Whether an Android NDK with a compiler is where the usual variables say."""
    fix = "sdkmanager 'ndk;27.2.12479018', then set ANDROID_NDK_HOME to its folder"
    candidates = [environment.get(name) for name in ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT")]
    if sdk := environment.get("ANDROID_HOME"):
        candidates += sorted(map(str, Path(sdk, "ndk").glob("*")), reverse=True)
    for folder in filter(None, candidates):
        if any(Path(folder).glob("toolchains/llvm/prebuilt/*/bin/clang")):
            return Check("Android NDK", True, folder)
    return Check("Android NDK", False, "ANDROID_NDK_HOME names no NDK", fix)


def _probe(code: str) -> tuple[str, str]:
    """Run code in a fresh interpreter: what it prints, and its last error line or ''."""
    try:
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer within {PROBE_SECONDS:g} s"
    if result.returncode == 0:
        return result.stdout.strip(), ""
    lines = result.stderr.strip().splitlines()
    return "", lines[-1] if lines else f"it crashed with status {result.returncode}"
