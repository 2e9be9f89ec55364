"""Directories that appear whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OCCUPIED = {errno.ENOTEMPTY, errno.EEXIST}


@contextmanager
def staged_directory(destination: Path, *, replace: bool) -> Iterator[Path]:
    """A new folder beside ``destination`` that takes its name when the block succeeds.

    When the block fails, or is interrupted, the folder is removed and ``destination`` is as before.

    Args:
        destination: the folder to make.
        replace: whether an existing ``destination`` gives way; otherwise it stays and the new
            folder is dropped (somebody else was faster).

    Yields:
        The folder to fill.

    Raises:
        UserError: the disk is full, or the place cannot be written.
    """
    destination = destination.absolute()
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    except OSError as error:
        raise _unwritable(destination, error) from error
    try:
        staged.chmod(0o755)  # mkdtemp's folders are private
        yield staged
        _move(staged, destination, replace)
    except OSError as error:
        if error.errno in _FULL:
            raise _unwritable(destination, error) from error
        raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def check_writable(destination: Path) -> None:
    """Make sure that ``destination`` can be made, before any work is done for it.

    Raises:
        UserError: the folder that it, or its first missing parent, is to lie in cannot be written.
    """
    folder = destination.absolute().parent
    while not folder.exists():
        folder = folder.parent
    try:
        os.rmdir(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=folder))
    except OSError as error:
        raise _unwritable(destination, error) from error


def _move(staged: Path, destination: Path, replace: bool) -> None:
    if replace and destination.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
        os.rename(destination, old)
        try:
            os.rename(staged, destination)
        except OSError:
            os.rename(old, destination)
            raise
        shutil.rmtree(old)
        return
    try:
        os.rename(staged, destination)
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise


def _unwritable(destination: Path, error: OSError) -> UserError:
    return UserError(
        f"{destination} cannot be written ({error.strerror}); free space or choose another place."
    )
