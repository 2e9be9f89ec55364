"""Build the emulated phone's software: an aarch64 RPC server and an instruction counter.

The server needs TVM's runtime for aarch64, which is taken from the wheels of exactly the installed
versions; headers are those of the installed packages. No root file system is needed: the C library
comes with the cross compiler.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import platformdirs

from pipeline.errors import UserError

NATIVE = Path(__file__).with_name("native")
SYSROOT = Path("/usr/aarch64-linux-gnu")
PACKAGES = ("apache-tvm", "apache-tvm-ffi")
RUNTIME = ("libtvm_runtime.so", "libtvm_runtime_extra.so", "libtvm_ffi.so")
WHEEL_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
COMPILE_SERVER = ("aarch64-linux-gnu-g++", "-std=c++17", "-O2")
COMPILE_PLUGIN = ("cc", "-O2", "-shared", "-fPIC")


@dataclass(frozen=True)
class EmulatorInstall:
    """A complete, never changing folder with the emulated phone's software."""

    root: Path

    @property
    def server(self) -> Path:
        """The aarch64 RPC server."""
        return self.root / "rpc_device"

    @property
    def runtime_extra(self) -> Path:
        """TVM's functions beyond the runtime's core; MetaSchedule measures with them."""
        return self.root / "lib" / "libtvm_runtime_extra.so"

    @property
    def counter(self) -> Path:
        """The QEMU plugin that counts instructions."""
        return self.root / "libicount.so"


def default_cache_dir() -> Path:
    """Where built emulators are kept."""
    return platformdirs.user_cache_path("pocketvit")


def installed_emulator(cache_dir: Path | None = None) -> EmulatorInstall | None:
    """The emulator for the present sources and TVM versions, if it is built."""
    root = (cache_dir or default_cache_dir()) / f"emulator-{_fingerprint()}"
    return EmulatorInstall(root) if root.is_dir() else None


def build_emulator(cache_dir: Path | None = None) -> EmulatorInstall:
    """Build the emulator, or return it at once when it is built already.

    Args:
        cache_dir: None for the user's cache directory.

    Raises:
        UserError: a compiler is missing, the download fails, or a file does not compile.
    """
    if install := installed_emulator(cache_dir):
        return install
    require_program(COMPILE_SERVER[0], "g++-aarch64-linux-gnu")
    require_program(COMPILE_PLUGIN[0], "gcc")
    parent = cache_dir or default_cache_dir()
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="building-") as scratch:
        staged = EmulatorInstall(Path(scratch) / "emulator")
        _fetch_runtime(Path(scratch) / "wheels", staged.root / "lib")
        _compile(staged)
        final = parent / f"emulator-{_fingerprint()}"
        try:
            os.rename(staged.root, final)  # all or nothing
        except OSError:
            if not final.is_dir():  # otherwise another process was faster
                raise
    return EmulatorInstall(final)


def require_program(name: str, package: str) -> str:
    """Path of a program.

    Raises:
        UserError: it is not installed; names the Debian package.
    """
    if path := shutil.which(name):
        return path
    raise UserError(f"{name} is not installed; run: apt-get install {package}.")


def _fingerprint() -> str:
    """Identifies everything that the build depends on."""
    digest = hashlib.sha256()
    for source in sorted(NATIVE.iterdir()):
        digest.update(source.read_bytes())
    recipe = (*(version(name) for name in PACKAGES), *COMPILE_SERVER, *COMPILE_PLUGIN)
    digest.update(" ".join(recipe).encode())
    return digest.hexdigest()[:16]


def _fetch_runtime(downloads: Path, target: Path) -> None:
    """Take the aarch64 runtime libraries out of the wheels."""
    abi = f"cp{sys.version_info.major}{sys.version_info.minor}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--dest", str(downloads)]
    for tag in (abi, "abi3", "none"):
        command += ["--abi", tag]
    for platform in WHEEL_PLATFORMS:
        command += ["--platform", platform]
    command += [f"{name}=={version(name)}" for name in PACKAGES]
    _run(command, "Downloading TVM's packages for aarch64", "check the network and pip's settings")
    target.mkdir(parents=True)
    for wheel in downloads.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if (name := Path(member).name) in RUNTIME:
                    (target / name).write_bytes(archive.read(member))
    if missing := [name for name in RUNTIME if not (target / name).exists()]:
        raise UserError(
            f"The aarch64 packages of TVM hold no {', '.join(missing)}; "
            f"install the versions that pocketvit doctor names."
        )


def _compile(install: EmulatorInstall) -> None:
    includes = [f"-I{_package_dir(name) / 'include'}" for name in ("tvm", "tvm_ffi")]
    link = [f"-L{install.root / 'lib'}", "-Wl,--no-as-needed", "-ltvm_runtime", "-ltvm_ffi"]
    server = [*COMPILE_SERVER, str(NATIVE / "rpc_device.cc"), "-o", str(install.server)]
    advice = "reinstall the compiler"
    _run([*server, *includes, *link, "-Wl,-rpath,$ORIGIN/lib"], "Compiling rpc_device.cc", advice)
    plugin = [*COMPILE_PLUGIN, str(NATIVE / "icount.c"), "-o", str(install.counter)]
    _run(plugin, "Compiling icount.c", advice)


def _package_dir(name: str) -> Path:
    """Folder of an installed package, without the seconds that importing TVM takes."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"The Python package {name} is not installed; run: pip install apache-tvm.")
    return Path(next(iter(spec.submodule_search_locations)))


def _run(command: list[str], what: str, advice: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no message"]
        reason = next((line for line in lines if "rror" in line), lines[-1])
        raise UserError(f"{what} failed ({reason.strip()}); {advice}.")
