"""Runs inside a peer's own environment, on this machine or on an emulated device.

    python -m scripts.benchmark.worker prepare|serve PEER VARIANT SOURCE FOLDER THREADS

``serve`` prints ``ready`` and then answers every line of its input with one line of JSON:

    time N      nanoseconds of each of N inferences
    cpu N       the same on the process's own clock, which stands still while others have the core
    count N     runs N inferences between the emulator's two markers; the memory map of the process

Between two lines it waits for input and uses no CPU.
"""

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from scripts.benchmark.peers import PEERS, Job, Run
from scripts.benchmark.source import Source

MARK_RESET, MARK_DUMP = 0x1C0DE1, 0x1C0DE2  # see pipeline/device/native/icount.c
WARMUP = 1


def main(task: str, peer: str, variant: str, source: str, folder: str, threads: str) -> None:
    """Do what the module's docstring says."""
    job = Job(Source(Path(source)), variant, Path(folder), int(threads))
    if task == "prepare":
        PEERS[peer].prepare(job)
        return
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # runtimes print what they like
    run = PEERS[peer].load(job)
    for _ in range(WARMUP):
        run()
    gc.disable()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        command, count = line.split()
        answer = COMMANDS[command](run, int(count))
        print(json.dumps(answer), file=answers, flush=True)


def _time(run: Run, count: int, clock: Callable[[], int] = time.perf_counter_ns) -> list[int]:
    times = []
    for _ in range(count):
        start = clock()
        run()
        times.append(clock() - start)
    return times


def _cpu(run: Run, count: int) -> list[int]:
    return _time(run, count, time.process_time_ns)


def _count(run: Run, count: int) -> str:
    libc = ctypes.CDLL(None)
    libc.syscall(MARK_RESET)
    for _ in range(count):
        run()
    libc.syscall(MARK_DUMP)
    return Path("/proc/self/maps").read_text()


COMMANDS: dict[str, Callable[[Run, int], object]] = {"time": _time, "cpu": _cpu, "count": _count}


if __name__ == "__main__":
    main(*sys.argv[1:])
