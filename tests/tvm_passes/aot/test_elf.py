"""What the linked files promise to a loader, read with readelf."""

import re
import shutil
import subprocess

import pytest

from tvm_passes.aot import TARGETS

from .conftest import Build

EXPORTS = {
    *(f"pocketvit_{name}" for name in ("abi_version", "create", "destroy", "get_info", "run")),
    *(f"pocketvit_{name}" for name in ("profile", "layer_name", "status_text", "last_error")),
    *(f"__tvm_ffi_pocketvit_{name}" for name in ("run", "profile", "set_threads")),
    "__TVMFFIErrorSetRaisedFromCStr",
}
FAMILIES = ["x86-64", "aarch64-linux", "android-arm64"]


@pytest.fixture
def elf(request: pytest.FixtureRequest, build: Build) -> str:
    """All that readelf says about the library of a target."""
    if shutil.which(TARGETS[request.param].compiler) is None:
        pytest.skip(f"{TARGETS[request.param].compiler} is not installed")
    path = build(request.param)[0]
    command = ["readelf", "--wide", "--headers", "--dynamic", "--relocs", "--dyn-syms", path]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed(elf: str) -> set[str]:
    """Libraries that must be there."""
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", elf))


@pytest.mark.parametrize("elf", FAMILIES, indirect=True)
def test_only_public_names_are_exported(elf: str) -> None:
    symbols = re.findall(r"(?:GLOBAL|WEAK) +DEFAULT +(\d+) (\w+)$", elf, re.M)
    assert {name for _, name in symbols} == EXPORTS


@pytest.mark.parametrize("elf", FAMILIES, indirect=True)
def test_nothing_but_the_c_library_is_needed(elf: str) -> None:
    assert needed(elf) in ({"libc.so.6", "libpthread.so.0"}, {"libc.so"})
    assert "(SONAME)             Library soname: [libpocketvit_tiny_net.so]" in elf


@pytest.mark.parametrize("elf", FAMILIES, indirect=True)
def test_code_is_position_independent_and_stack_not_executable(elf: str) -> None:
    assert "TEXTREL" not in elf
    assert re.search(r"GNU_STACK .* RW ", elf)
    assert ".symtab" not in elf  # stripped


@pytest.mark.parametrize("elf", FAMILIES, indirect=True)
def test_any_version_of_the_c_library_will_do(elf: str) -> None:
    assert "GLIBC" not in elf
    assert "VERNEED" not in elf


@pytest.mark.parametrize("elf", ["android-arm64"], indirect=True)
def test_android_rules_hold(elf: str) -> None:
    assert not re.search(r"^ +TLS ", elf, re.M)
    loads = re.findall(r"^ +LOAD .* (0x[0-9a-f]+)$", elf, re.M)
    assert loads
    assert set(loads) == {"0x4000"}
    kinds = set(re.findall(r" (R_AARCH64_\w+) ", elf))
    assert kinds <= {"R_AARCH64_RELATIVE", "R_AARCH64_JUMP_SLOT", "R_AARCH64_GLOB_DAT"}


@pytest.mark.parametrize("elf", ["android-arm64"], indirect=True)
def test_data_after_the_protected_part_starts_on_its_own_16_kib_page(elf: str) -> None:
    found = re.search(r"GNU_RELRO +\S+ (\S+) \S+ \S+ (\S+)", elf)
    assert found
    assert (int(found[1], 16) + int(found[2], 16)) % 0x4000 == 0


def test_every_target_has_its_kind_of_instruction_set() -> None:
    assert all(spec.is_arm == spec.isa.startswith("neon") for spec in TARGETS.values())


def test_the_report_counts_code_and_file(build: Build) -> None:
    path, report = build("x86-64")
    assert report.file_bytes == path.stat().st_size
    assert 0 < report.code_bytes < report.file_bytes
    assert report.live_bytes <= report.arena_bytes <= 1.3 * report.live_bytes
