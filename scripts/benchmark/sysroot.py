"""A Python for ARM without an ARM machine: Debian's packages and the peers' wheels, unpacked.

Nothing is installed on this machine: apt and pip only download, into folders of their own.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files.staging import staged_directory
from scripts.benchmark.environments import Cache
from scripts.benchmark.peers import Peer

DEBIAN_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgcc-s1", "zlib1g")
GLIBC_MINORS = range(17, 37)
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm asimddp"
# QEMU shows the host's /proc/cpuinfo, which runtimes that look for ARM's fields cannot read.
PARTS = {"cortex-a53": "0xd03", "cortex-a76": "0xd0b", "max,sve=off": "0xd49"}
EXTRA = {"cortex-a53": "", "cortex-a76": "", "max,sve=off": " i8mm bf16"}


def make_sysroot(cache: Cache) -> Path:
    """Folder with an aarch64 Python, made unless it is there.

    Raises:
        UserError: apt is missing or cannot download.
    """
    folder = cache.root / "device" / "debian"
    if folder.is_dir():
        return folder
    with staged_directory(folder, replace=False) as staged:
        apt = staged.with_name(staged.name + ".apt")
        try:
            _download_debian(apt)
            for links in ("lib", "bin"):
                (staged / "usr" / links).mkdir(parents=True)
                (staged / links).symlink_to(f"usr/{links}")
            for package in sorted((apt / "cache" / "archives").glob("*.deb")):
                _unpack(package, staged)
        finally:
            subprocess.run(["rm", "-rf", str(apt)], check=False)
    return folder


def sysroot_of(cache: Cache, cpu: str) -> Path:
    """The sysroot that shows a CPU as the kernel of a phone would."""
    folder = cache.root / "device" / cpu.replace(",", "-")
    if not folder.is_dir():
        debian = make_sysroot(cache)
        with staged_directory(folder, replace=False) as staged:
            for name in ("usr", "lib", "bin"):
                (staged / name).symlink_to(debian / name)
            system = staged / "sys" / "devices" / "system" / "cpu"
            system.mkdir(parents=True)
            for name in ("possible", "present", "online"):
                (system / name).write_text("0\n")
            (staged / "proc").mkdir()
            fields = {
                "processor": "0",
                "BogoMIPS": "50.00",
                "Features": FEATURES + EXTRA[cpu],
                "CPU implementer": "0x41",
                "CPU architecture": "8",
                "CPU variant": "0x1",
                "CPU part": PARTS[cpu],
                "CPU revision": "0",
            }
            text = "".join(f"{key}\t: {value}\n" for key, value in fields.items())
            (staged / "proc" / "cpuinfo").write_text(text + "\n")
    return folder


def device_python(sysroot: Path) -> Path:
    """The interpreter of a sysroot."""
    return next(iter(sorted((sysroot / "usr" / "bin").glob("python3.*[0-9]"))))


def make_site(cache: Cache, peer: Peer) -> Path:
    """Folder with a peer's aarch64 packages, made unless it is there.

    Raises:
        UserError: pip cannot download them.
    """
    folder = cache.root / "device" / f"site-{peer.name}"
    if folder.is_dir():
        return folder
    release = device_python(make_sysroot(cache)).name.removeprefix("python")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", release]
    for abi in (f"cp{release.replace('.', '')}", "abi3", "none"):
        command += ["--abi", abi]
    for minor in reversed(GLIBC_MINORS):
        command += ["--platform", f"manylinux_2_{minor}_aarch64"]
    command += ["--platform", "manylinux2014_aarch64"]
    with staged_directory(folder, replace=False) as staged:
        _run([*command, "--target", str(staged), *peer.device_packages], "pip")
    return folder


def _download_debian(apt: Path) -> None:
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": os.environ.get("USER", "root"),
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    apt_get = ["apt-get", *options, "-qq", "-y", "--no-install-recommends"]
    _run([*apt_get, "update"], "apt-get")
    _run([*apt_get, "--download-only", "install", *DEBIAN_PACKAGES], "apt-get")


def _unpack(package: Path, target: Path) -> None:
    content = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(package)], check=True, capture_output=True
    ).stdout
    extract = ["tar", "-C", str(target), "-x", "--keep-directory-symlink"]
    subprocess.run(extract, input=content, check=True)


def _run(command: Sequence[str], what: str) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UserError(f"{what} is not installed; this needs Debian or Ubuntu.") from error
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"{what} cannot fetch what the device needs: {lines[-1]}.")
