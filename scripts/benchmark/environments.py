"""Every peer's own Python environment, below the cache folder."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from scripts.benchmark.peers import Peer

PIP_TIMEOUT = 1800  # seconds


@dataclass(frozen=True)
class Cache:
    """Where environments and converted networks are kept.

    Attributes:
        root: may be deleted at any time, at the price of doing the work again.
    """

    root: Path

    @property
    def sources(self) -> Path:
        """Parent of the exported networks."""
        return self.root / "networks"

    def environment(self, peer: Peer) -> Path:
        """Folder of a peer's environment."""
        key = hashlib.sha256(" ".join(peer.packages).encode()).hexdigest()[:8]
        return self.root / "environments" / f"{peer.name}-{key}"


def python_of(cache: Cache, peer: Peer) -> Path:
    """The interpreter that has a peer's packages.

    Raises:
        UserError: its environment is not made yet.
    """
    if not peer.packages:
        return Path(sys.executable)
    folder = cache.environment(peer)
    if not _finished(folder).is_file():
        raise UserError(
            f"{peer.name} is not set up; run: python -m scripts.benchmark.setup {peer.name}."
        )
    return folder / "bin" / "python"


def make_environment(cache: Cache, peer: Peer) -> bool:
    """Make a peer's environment; False when it was there already.

    Raises:
        UserError: a package cannot be installed.
    """
    folder = cache.environment(peer)
    if not peer.packages or _finished(folder).is_file():
        return False
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], peer)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    for last in range(1, len(peer.packages) + 1):
        _run([*pip, *peer.packages[:last]], peer)
    _finished(folder).touch()
    return True


def _finished(folder: Path) -> Path:
    return folder / "finished"


def _run(command: list[str], peer: Peer) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=PIP_TIMEOUT)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no message"]
        reason = next((line for line in reversed(lines) if "ERROR" in line), lines[-1])
        raise UserError(f"Setting up {peer.name} failed ({reason}); check the network.") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"Setting up {peer.name} took longer than {PIP_TIMEOUT} s.") from error
