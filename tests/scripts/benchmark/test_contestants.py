"""Worker processes: their protocol, their turns, and what is said when one fails."""

import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from scripts.benchmark.contestants import Contestant, Entry, environment, start
from scripts.benchmark.peers import PEERS, Peer
from scripts.benchmark.peers.base import Job
from scripts.benchmark.rounds import MAXIMUM_RUNS, MINIMUM_RUNS, run_rounds, turn_length
from scripts.benchmark.source import Source
from scripts.benchmark.worker import main

ECHO = """
import json, sys
print("ready", flush=True)
for line in sys.stdin:
    command, count = line.split()
    print(json.dumps([len(command)] * int(count)), flush=True)
"""


def test_a_worker_answers_line_by_line() -> None:
    with start([sys.executable, "-c", ECHO], environment(1)) as worker:
        assert worker.time(3) == [4, 4, 4]
        assert worker.time(2, "cpu") == [3, 3]


@pytest.mark.parametrize("code", ["raise ValueError('no model')", "print('ready'); 1 / 0"])
def test_a_worker_that_ends_is_explained(code: str) -> None:
    with pytest.raises(UserError, match=r"does not run: \w+Error: (no model|division)"):
        with start([sys.executable, "-c", code], environment(1)) as worker:
            worker.time(1)


def test_the_worker_prepares_a_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written: list[str] = []

    def prepare(job: Job) -> None:
        written.append(f"{job.variant} {job.folder.name} {job.threads}")

    peer = Peer("noisy", ("int8",), prepare, lambda job: lambda: None)
    monkeypatch.setitem(PEERS, "noisy", peer)
    main("prepare", "noisy", "int8", str(tmp_path), str(tmp_path / "out"), "2")
    assert written == ["int8 out 2"]


def test_arguments_name_everything_that_the_worker_needs(tmp_path: Path) -> None:
    entry = Entry("litert", "int8", Source(tmp_path / "net"), tmp_path / "prepared")
    assert entry.name == "litert int8"
    assert entry.arguments("serve", 4)[2:] == [
        "serve", "litert", "int8", str(tmp_path / "net"), str(tmp_path / "prepared"), "4",
    ]  # fmt: skip


class _Fake(Contestant):
    def __init__(self, log: list[str], name: str, nanoseconds: int) -> None:
        self._calls, self._name, self._nanoseconds = log, name, nanoseconds

    def time(self, count: int, clock: str = "time") -> list[int]:
        self._calls.append(f"{self._name}{count}{clock}")
        return [self._nanoseconds] * count


def test_contestants_take_turns() -> None:
    log: list[str] = []
    fakes = {"a": _Fake(log, "a", 1_000_000), "b": _Fake(log, "b", 2_000_000)}
    times = run_rounds(fakes, rounds=2, slice_seconds=0.01, clock="cpu")
    turn = ["a1cpu", "a10cpu", "b1cpu", "b5cpu"]
    assert log == ["a3cpu", "b3cpu", *turn, *turn]
    assert times == {"a": [1_000_000] * 20, "b": [2_000_000] * 10}


def test_turns_are_neither_too_short_nor_too_long() -> None:
    assert turn_length([10**12], 0.4) == MINIMUM_RUNS
    assert turn_length([1], 0.4) == MAXIMUM_RUNS
    assert turn_length([5_000_000, 4_000_000, 90_000_000], 0.4) == 80
