"""SHA-256 of files."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(root: Path, names: Iterable[str]) -> str:
    """SHA-256 over the paths below `root` and the contents of files, in hexadecimal.

    Args:
        root: a folder.
        names: files below it, and folders, of which all files count but Python's byte code.

    Raises:
        FileNotFoundError: there is no such file or folder.
    """
    files = {path for name in names for path in _files(root / name)}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(root).as_posix()} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise FileNotFoundError(path)
    found = path.rglob("*") if path.is_dir() else [path]
    return (file for file in found if file.is_file() and "__pycache__" not in file.parts)
