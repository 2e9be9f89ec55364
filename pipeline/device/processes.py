"""Background processes that never outlive us, and TCP ports for them."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.errors import UserError

SUPERVISOR = Path(__file__).with_name("supervise.py")


@dataclass(frozen=True)
class ManagedProcess:
    """A command that runs under `supervise.py`, see `run_process`.

    Attributes:
        name: what the user calls it, for messages.
        supervisor: the process whose open standard input keeps the command alive.
        folder: scratch folder of the command, removed at its end.
        log: what the command prints.
    """

    name: str
    supervisor: subprocess.Popen[bytes]
    folder: Path
    log: IO[bytes]

    @property
    def running(self) -> bool:
        """Whether the command has not ended yet."""
        return self.supervisor.poll() is None

    def last_line(self) -> str:
        """The last line that the command printed."""
        # pread, because the command shares the file's position with us
        text = os.pread(self.log.fileno(), 1 << 20, 0).decode(errors="replace")
        return next(reversed(text.strip().splitlines()), "it printed nothing")

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Wait until `ready()` holds.

        Args:
            ready: cheap check, called every 50 ms.
            timeout: seconds.

        Raises:
            UserError: the command ended, or is not ready in time.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running:
                raise UserError(f"The {self.name} ended while starting: {self.last_line()}.")
            if time.monotonic() > deadline:
                raise UserError(
                    f"The {self.name} is not ready after {timeout:g} s (its last line: "
                    f"{self.last_line()}); try again when the machine is less busy."
                )
            time.sleep(0.05)

    def stop(self) -> None:
        """End the command and all its children, and remove its folder."""
        assert self.supervisor.stdin is not None
        self.supervisor.stdin.close()
        self.supervisor.wait(timeout=10)
        self.log.close()


@contextmanager
def run_process(
    name: str, command: Callable[[Path], Sequence[str]], environment: Mapping[str, str]
) -> Iterator[ManagedProcess]:
    """Run a command in its own session until the context ends, or we end, however that is.

    Args:
        name: what the user calls it, for messages.
        command: gives program and arguments, from the scratch folder made for it.
        environment: variables on top of ours.
    """
    folder = Path(tempfile.mkdtemp(prefix="pocketvit-"))
    log = tempfile.TemporaryFile()  # closed by stop
    supervisor = subprocess.Popen(
        [sys.executable, "-I", "-S", str(SUPERVISOR), str(folder), *command(folder)],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    process = ManagedProcess(name, supervisor, folder, log)
    try:
        yield process
    finally:
        process.stop()


def pick_port(host: str, port: int | None) -> int:
    """A TCP port of `host` that is free now: `port`, or any when None.

    Raises:
        UserError: `port` is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port or 0))
        except OSError as error:
            raise UserError(
                f"Port {port} of {host} cannot be used ({error.strerror}); "
                "name another port or leave it out to take any free one."
            ) from error
        chosen: int = probe.getsockname()[1]
        return chosen
