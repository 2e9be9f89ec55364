"""An emulated ARM phone that registers at a TVM RPC tracker like a real one.

It answers two questions exactly: does a library run on that CPU with the right result, and which
instructions does it execute. It cannot say how long anything takes: emulated time is no proxy.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.device.emulator_install import (
    SYSROOT,
    EmulatorInstall,
    build_emulator,
    require_program,
)
from pipeline.device.processes import ManagedProcess, pick_port, run_process
from pipeline.device.tracker import Address, registered_keys, start_tracker
from pipeline.errors import UserError

__all__ = [
    "EMULATED_CPUS",
    "EmulatedDevice",
    "EmulatorInstall",
    "build_emulator",
    "emulated_device",
    "start_emulator",
    "start_tracker",
]

QEMU = "qemu-aarch64"
LAST_COUNTING_QEMU = 8  # its successors dropped the plugin interface that icount.c uses

EMULATED_CPUS = {
    "cortex-a53": "Armv8.0 with plain NEON: phones of 2014 to 2018",
    "cortex-a76": "dotprod: A55 and A75 to A78, X1",
    "max,sve=off": "dotprod and i8mm, no SVE: Armv8.6 and later",
}


@dataclass(frozen=True)
class EmulatedDevice:
    """What a client needs to reach a running emulator."""

    tracker: Address
    key: str
    process: ManagedProcess


@contextmanager
def start_emulator(
    install: EmulatorInstall,
    cpu: str,
    key: str,
    tracker: Address,
    port: int | None = None,
    count_instructions: bool = False,
    timeout: float = 60,
) -> Iterator[EmulatedDevice]:
    """Run an emulated device until the context ends.

    Args:
        install: from `build_emulator`.
        cpu: one of `EMULATED_CPUS`.
        key: name to register under; letters, digits, ``-``, ``_`` and ``.``.
        tracker: where to register.
        port: TCP port of the device; None takes a free one.
        count_instructions: load the counter, for `RpcDevice.count`.
        timeout: seconds that it may take to register.

    Raises:
        UserError: unknown CPU or key, QEMU is missing or lacks plugins, the port is in use, or the
            device does not register in time.
    """
    _check_cpu(cpu)
    if not key or not all(letter.isalnum() or letter in "-_." for letter in key):
        raise UserError(f"The device key '{key}' must be of letters, digits, '-', '_' and '.'.")
    qemu = require_program(QEMU, "qemu-user")
    if count_instructions and (problem := counting_problem(qemu)):
        raise UserError(
            f"{qemu} cannot count instructions: {problem}; "
            "install another (apt-get install qemu-user) or start without counting."
        )
    if not SYSROOT.is_dir():
        raise UserError(f"{SYSROOT} does not exist; run: apt-get install libc6-arm64-cross.")
    device = Address("127.0.0.1", pick_port("127.0.0.1", port))

    def command(folder: Path) -> list[str]:
        profile = folder / "profile"
        plugin = ["-plugin", f"{install.counter},out={profile}"] if count_instructions else []
        server = [str(install.server), "--load", str(install.runtime_extra), "--work", str(folder)]
        server += ["--host", device.host, "--port", str(device.port)]
        server += ["--tracker", str(tracker), "--key", key, "--emulated-cpu", cpu]
        if count_instructions:
            server += ["--profile", str(profile)]
        return [qemu, *plugin, "-cpu", cpu, "-L", str(SYSROOT), *server]

    # one thread: the counter is exact for one only, and emulated threads say nothing about time
    environment = {"TVM_NUM_THREADS": "1"}
    with run_process(f"emulated {cpu}", command, environment) as process:
        process.wait_until(lambda: key in registered_keys(tracker), timeout)
        yield EmulatedDevice(tracker, key, process)


@contextmanager
def emulated_device(
    cpu: str = "cortex-a76", count_instructions: bool = True, cache_dir: Path | None = None
) -> Iterator[EmulatedDevice]:
    """An emulated device with a tracker of its own, on free ports.

    Args:
        cpu: one of `EMULATED_CPUS`.
        count_instructions: see `start_emulator`.
        cache_dir: see `build_emulator`.

    Raises:
        UserError: see `build_emulator`, `start_tracker` and `start_emulator`.
    """
    _check_cpu(cpu)
    install = build_emulator(cache_dir)
    key = "emulated-" + cpu.partition(",")[0]
    with start_tracker() as tracker:
        with start_emulator(
            install, cpu, key, tracker, count_instructions=count_instructions
        ) as device:
            yield device


def counting_problem(qemu: str) -> str:
    """Why this QEMU cannot load the plugin that counts instructions; empty when it can."""

    def output(option: str) -> str:
        return subprocess.run([qemu, option], capture_output=True, text=True, timeout=10).stdout

    if "-plugin " not in output("-help"):
        return "it is built without plugins, as Debian's qemu-user-static is"
    release = re.search(r"version (\d+)", output("--version"))
    if release and int(release[1]) > LAST_COUNTING_QEMU:
        return f"QEMU {release[1]} has another plugin interface than 4.2 to 8.2"
    return ""


def _check_cpu(cpu: str) -> None:
    if cpu in EMULATED_CPUS:
        return
    known = ", ".join(EMULATED_CPUS)
    if cpu.partition(",")[0] == "max" or "sve" in cpu or "sme" in cpu:
        raise UserError(
            f"The CPU '{cpu}' has SVE or SME, which the emulator does not compute reliably; "
            f"use one of: {known}."
        )
    raise UserError(f"The emulator does not know the CPU '{cpu}'; use one of: {known}.")
