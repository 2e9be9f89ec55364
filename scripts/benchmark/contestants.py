"""Peers as processes of their own: prepared once, then idle until they are asked."""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.errors import UserError
from pipeline.files.staging import staged_directory
from scripts.benchmark.environments import Cache, python_of
from scripts.benchmark.peers import PEERS, Peer
from scripts.benchmark.source import Source

ROOT = Path(__file__).resolve().parents[2]
PREPARE_TIMEOUT = 1800  # seconds
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS")
OUR_ERROR = re.compile(r"^(\w+\.)+(UserError|LoweringError): ")


@dataclass(frozen=True)
class Entry:
    """One variant of one peer for one network, ready to be started.

    Attributes:
        peer: key of `PEERS`.
        variant: of the peer's variants.
        source: the network.
        folder: what the peer prepared.
    """

    peer: str
    variant: str
    source: Source
    folder: Path

    @property
    def name(self) -> str:
        """What the user reads."""
        return f"{self.peer} {self.variant}"

    def arguments(self, task: str, threads: int = 1) -> list[str]:
        """Arguments of the interpreter that does a task of `worker`."""
        paths = [str(self.source.folder), str(self.folder)]
        return [
            "-m", "scripts.benchmark.worker", task, self.peer, self.variant, *paths, str(threads)
        ]  # fmt: skip


def prepare(cache: Cache, peer: Peer, variant: str, source: Source) -> Entry:
    """Convert a network for a peer, unless that was done before.

    Raises:
        UserError: the peer is not set up, or cannot convert the network.
    """
    python = python_of(cache, peer)
    folder = source.folder / f"{peer.name}-{variant.replace(' ', '-')}"
    if peer.keep and folder.is_dir():
        return Entry(peer.name, variant, source, folder)
    with staged_directory(folder, replace=True) as staged:
        entry = Entry(peer.name, variant, source, staged)
        with tempfile.TemporaryFile() as log:
            command = [str(python), *entry.arguments("prepare")]
            try:
                status = subprocess.run(
                    command, cwd=ROOT, env=environment(1), stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, timeout=PREPARE_TIMEOUT,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise UserError(f"not converted within {PREPARE_TIMEOUT} s") from error
            if status:
                raise UserError(f"cannot be converted: {last_line(log)}")
    return Entry(peer.name, variant, source, folder)


def environment(threads: int) -> dict[str, str]:
    """Variables of a worker."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return inherited | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"PYTHONPATH": str(ROOT)}


def last_line(log: IO[bytes]) -> str:
    """The last line of a log that says something."""
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return OUR_ERROR.sub("", lines[-1].strip())[:300] if lines else "it said nothing"


class Contestant:
    """A running worker."""

    def __init__(self, process: "subprocess.Popen[str]", log: IO[bytes]) -> None:
        """Made by `start`."""
        self._process = process
        self._log = log
        self._answer()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, command: str, count: int) -> Any:
        """The worker's answer to a line of its protocol.

        Raises:
            UserError: the worker ended.
        """
        assert self._process.stdin is not None
        try:
            print(command, count, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # the missing answer says it
        return json.loads(self._answer())

    def time(self, count: int, clock: str = "time") -> list[int]:
        """Nanoseconds of each of `count` inferences; `clock` is "time" or "cpu"."""
        times: list[int] = self.ask(clock, count)
        return times

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise UserError(f"does not run: {last_line(self._log)}")
        return line


@contextmanager
def start(
    command: Sequence[str], variables: dict[str, str], cores: Sequence[int] | None = None
) -> Iterator[Contestant]:
    """Run a worker until the context ends.

    Args:
        command: program and arguments.
        variables: its whole environment.
        cores: to which it is pinned.

    Raises:
        UserError: it ends before it is ready.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        )  # fmt: skip
        try:
            yield Contestant(process, log)
        finally:
            process.kill()
            process.communicate()


def start_on_host(
    cache: Cache, entry: Entry, threads: int, cores: Sequence[int]
) -> AbstractContextManager[Contestant]:
    """Run a peer's worker on this machine, see `start`."""
    python = python_of(cache, PEERS[entry.peer])
    command = [str(python), *entry.arguments("serve", threads)]
    return start(command, environment(threads), cores)
