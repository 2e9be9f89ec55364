"""Targets that a library can be built for, and which of them this machine is."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tvm.target import Target

from tvm_passes.errors import LoweringError
from tvm_passes.kernels.isa import ISAS

# CPU features that a library's kernels may use; it refuses to run where one is missing. The x86
# names are those of the compiler's __builtin_cpu_supports, the ARM ones those of the kernel.
CPU_FEATURES: dict[str, tuple[str, ...]] = {
    "portable": (),
    "avx2": ("avx2", "bmi2", "fma"),
    "avx512vnni": (
        "avx512f",
        "avx512bw",
        "avx512dq",
        "avx512vl",
        "avx512vbmi",
        "avx512vbmi2",
        "avx512vnni",
        "gfni",
    ),
    "neon": (),
    "neon-dotprod": ("asimddp", "asimdrdm"),
    "neon-i8mm": ("asimddp", "asimdrdm", "i8mm"),
}


@dataclass(frozen=True)
class TargetSpec:
    """One kind of machine.

    Attributes:
        name: key of ``TARGETS``; the name of the artifact's folder.
        triple: LLVM target triple of the kernels.
        isa: key of ``tvm_passes.kernels.isa.ISAS``.
        system: "linux" or "android"; decides how the library is linked.
        compiler: command of the C compiler (Android: used where no NDK is installed).
    """

    name: str
    triple: str
    isa: str
    system: Literal["linux", "android"]
    compiler: str

    @property
    def cpu_features(self) -> tuple[str, ...]:
        """Features that the library asks for at run time before it calls a kernel."""
        return CPU_FEATURES[self.isa]

    @property
    def is_arm(self) -> bool:
        """Whether this is a 64-bit ARM target."""
        return self.triple.startswith("aarch64")

    def tvm_target(self, cores: int = 1) -> Target:
        """The TVM target; ``cores`` is what MetaSchedule may assume."""
        isa = ISAS[self.isa]
        description: dict[str, object] = {
            "kind": "llvm",
            "mtriple": self.triple,
            "num-cores": cores,
        }
        if isa.mattr:
            description["mattr"] = list(isa.mattr)
        if isa.mcpu:
            description["mcpu"] = isa.mcpu
        return Target(description)


def _variants(
    name: str,
    triple: str,
    system: Literal["linux", "android"],
    compiler: str,
    isas: dict[str, str],
) -> list[TargetSpec]:
    return [
        TargetSpec(name + suffix, triple, isa, system, compiler) for suffix, isa in isas.items()
    ]


_X86 = {"": "portable", "-avx2": "avx2", "-avx512vnni": "avx512vnni"}
_ARM = {"": "neon-dotprod", "-neon": "neon", "-i8mm": "neon-i8mm"}
_ARM_CC = "aarch64-linux-gnu-gcc"

TARGETS: dict[str, TargetSpec] = {
    spec.name: spec
    for spec in (
        *_variants("x86-64", "x86_64-linux-gnu", "linux", "gcc", _X86),
        *_variants("aarch64-linux", "aarch64-linux-gnu", "linux", _ARM_CC, _ARM),
        *_variants("android-arm64", "aarch64-linux-android", "android", _ARM_CC, _ARM),
    )
}


def resolve_target(name: str) -> TargetSpec:
    """The target called ``name``; "host" is the best that this CPU can run.

    Raises:
        LoweringError: no such target.
    """
    if name == "host":
        name = host_target(platform.machine(), _cpu_flags())
    if name not in TARGETS:
        known = ", ".join(["host", *TARGETS])
        raise LoweringError(f"There is no target {name!r}; choose one of {known}.")
    return TARGETS[name]


def host_target(machine: str, flags: frozenset[str]) -> str:
    """Name of the best target for a Linux machine.

    Args:
        machine: as ``uname -m`` prints it.
        flags: CPU features as /proc/cpuinfo lists them, without the underscore of "avx512_vnni".

    Raises:
        LoweringError: neither x86-64 nor 64-bit ARM.
    """
    families = {
        "x86_64": ("x86-64-avx512vnni", "x86-64-avx2", "x86-64"),
        "aarch64": ("aarch64-linux-i8mm", "aarch64-linux", "aarch64-linux-neon"),
    }
    for name in families.get(machine, ()):
        if flags.issuperset(TARGETS[name].cpu_features):
            return name
    raise LoweringError(f"This machine is {machine!r}; name a target instead of 'host'.")


def _cpu_flags() -> frozenset[str]:
    """CPU features of this machine (empty where the system does not list them)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(flag.replace("avx512_", "avx512") for flag in value.split())
    return frozenset()
