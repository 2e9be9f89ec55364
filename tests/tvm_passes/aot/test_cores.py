"""Which cores are taken for big: ARM programs under emulation, with a made-up /sys."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .test_pool import ARM_COMPILER, EMULATE, HERE, RUNTIME, compile_c, needs_emulator

ALL = -1
SOURCES = [HERE / "count_cores.c", RUNTIME / "cores.c"]


@needs_emulator
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize(
    ("capacities", "frequencies", "big"),
    [
        ((1024, 400), (), 1),  # a big core and a little one
        ((1024, 620), (), ALL),  # the fastest and a medium one
        ((1024, 620), (2000000, 1000000), ALL),  # the capacity says more
        ((), (2400000, 1800000), 1),
        ((), (1800000, 1800000), ALL),
        ((), (), 0),  # nothing is known
    ],
)
def test_fast_cores_are_told_from_slow_ones(
    capacities: tuple[int, ...], frequencies: tuple[int, ...], big: int, tmp_path: Path
) -> None:
    cores = sorted(os.sched_getaffinity(0))
    files = {"cpu_capacity": capacities, "cpufreq/cpuinfo_max_freq": frequencies}
    for name, values in files.items():
        for index, core in enumerate(cores):
            path = tmp_path / f"cpu{core}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if values:
                path.write_text(f"{values[min(index, 1)]}\n")
    where = f'-DPV_CPUS="{tmp_path}/cpu"'
    program = compile_c(SOURCES, tmp_path / "count", where, compiler=ARM_COMPILER)
    found = subprocess.run([*EMULATE, program], check=True, capture_output=True, text=True)
    assert int(found.stdout) == (len(cores) if big == ALL else big)


def test_other_machines_have_big_cores_only(tmp_path: Path) -> None:
    if shutil.which("gcc") is None or os.uname().machine != "x86_64":
        pytest.skip("this is no x86-64 machine with gcc")
    program = compile_c(SOURCES, tmp_path / "count")
    found = subprocess.run([program], check=True, capture_output=True, text=True)
    assert int(found.stdout) == min(64, len(os.sched_getaffinity(0)))
