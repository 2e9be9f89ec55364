"""Which device the user means, which libraries it runs, and a session on it."""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.device import (
    EMULATED_CPUS,
    Device,
    HostDevice,
    RpcDevice,
    build_emulator,
    emulated_device,
)
from pipeline.device.emulator import QEMU
from pipeline.device.emulator_install import require_program
from pipeline.device.tracker import Address, registered_keys
from pipeline.errors import UserError
from pipeline.progress import Reporter
from tvm_passes.aot import TARGETS, resolve_target

DEFAULT_CPU = "cortex-a76"

# Targets whose libraries an emulated CPU runs, the best first.
EMULATED_TARGETS = {
    "cortex-a53": ("aarch64-linux-neon",),
    "cortex-a76": ("aarch64-linux", "aarch64-linux-neon"),
    "max,sve=off": ("aarch64-linux-i8mm", "aarch64-linux", "aarch64-linux-neon"),
}


@dataclass(frozen=True)
class Host:
    """This machine; `threads` as in `HostDevice`."""

    threads: int = 0
    name = "host"

    def targets(self) -> tuple[str, ...]:
        """Targets of libraries that it runs, the best first."""
        best = resolve_target("host").name
        family = "x86-64" if platform.machine() == "x86_64" else "aarch64-linux"
        return (best, *(name for name in TARGETS if name.startswith(family) and name != best))

    def check(self, reporter: Reporter) -> None:
        """Nothing can be missing."""

    @contextmanager
    def open(self, reporter: Reporter) -> Iterator[Device]:
        """The device, as long as the context lasts."""
        yield HostDevice(self.threads)


@dataclass(frozen=True)
class Emulated:
    """An emulated ARM device, started for the occasion; `cpu` is a key of `EMULATED_CPUS`."""

    cpu: str

    def __post_init__(self) -> None:
        """Refuse an unknown CPU."""
        if self.cpu not in EMULATED_CPUS:
            raise UserError(
                f"The emulator does not know the CPU '{self.cpu}'; "
                f"use one of: {', '.join(EMULATED_CPUS)}."
            )

    @property
    def name(self) -> str:
        """What the user calls it."""
        return f"emulated {self.cpu}"

    def targets(self) -> tuple[str, ...]:
        """Targets of libraries that it runs, the best first."""
        return EMULATED_TARGETS[self.cpu]

    def check(self, reporter: Reporter) -> None:
        """Find out before any work what is missing.

        Raises:
            UserError: QEMU or a compiler is not installed, or the emulator cannot be built.
        """
        with reporter.step("build the emulator"):
            require_program(QEMU, "qemu-user")
            build_emulator()

    @contextmanager
    def open(self, reporter: Reporter) -> Iterator[Device]:
        """The device, as long as the context lasts.

        Raises:
            UserError: it does not start.
        """
        with reporter.step(f"start {self.name}"):
            starting = emulated_device(self.cpu)
            running = starting.__enter__()
        try:
            with RpcDevice(running.tracker, running.key) as device:
                yield device
        finally:
            starting.__exit__(None, None, None)


@dataclass(frozen=True)
class Remote:
    """A device behind a TVM RPC tracker; `threads` as in `RpcDevice`."""

    tracker: Address
    key: str
    threads: int = 0

    @property
    def name(self) -> str:
        """What the user calls it."""
        return f"{self.key} at {self.tracker}"

    def targets(self) -> tuple[str, ...]:
        """All targets for 64-bit ARM, those of Android first; only the user knows which fits."""
        arm = [name for name, target in TARGETS.items() if target.is_arm]
        return tuple(sorted(arm, key=lambda name: not name.startswith("android")))

    def check(self, reporter: Reporter) -> None:
        """Find out before any work whether the device is there.

        Raises:
            UserError: the tracker does not answer, or has no such device.
        """
        keys = registered_keys(self.tracker)
        if self.key not in keys:
            raise UserError(
                f"No device with key '{self.key}' is registered at tracker {self.tracker} "
                f"(there are: {', '.join(keys) or 'none'}); start it or correct the key."
            )

    @contextmanager
    def open(self, reporter: Reporter) -> Iterator[Device]:
        """The device, as long as the context lasts.

        Raises:
            UserError: it does not answer.
        """
        with reporter.step(f"connect to {self.name}"):
            device = RpcDevice(self.tracker, self.key, threads=self.threads)
        with device:
            yield device


Choice = Host | Emulated | Remote


def parse_devices(
    names: Sequence[str], tracker: str | None = None, key: str | None = None, threads: int = 0
) -> tuple[Choice, ...]:
    """The devices that the options name; this machine when they name none.

    Args:
        names: each "host", "emulated" or "emulated:CPU".
        tracker: "host:port" of a tracker.
        key: of a device there.
        threads: the most that work on one image on real hardware; 0 leaves it to the library.

    Raises:
        UserError: a name or an address has another form, or one of tracker and key is missing.
    """
    chosen: list[Choice] = []
    for name in names:
        kind, _, cpu = name.partition(":")
        if name == "host":
            chosen.append(Host(threads))
        elif kind == "emulated":
            chosen.append(Emulated(cpu or DEFAULT_CPU))
        else:
            raise UserError(
                f"There is no device '{name}'; name host, emulated or emulated:CPU, or give "
                "--tracker and --key."
            )
    if (tracker is None) != (key is None):
        raise UserError("A remote device needs both --tracker HOST:PORT and --key KEY; give both.")
    if tracker is not None and key is not None:
        chosen.append(Remote(Address.parse(tracker), key, threads))
    return tuple(dict.fromkeys(chosen)) or (Host(threads),)
