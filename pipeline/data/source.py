"""Where photos are: a folder, or a text file that lists them.

A list has one path per line, relative to its root or absolute; blank lines and lines that begin
with # are ignored. The root is the list's own folder unless another one is given, so that a list
may be kept apart from its photos. It is UTF-8.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError


@dataclass(frozen=True)
class PhotoList:
    """A text file that lists photos.

    Attributes:
        file: the list.
        root: folder that its relative paths begin at.
    """

    file: Path
    root: Path

    def __str__(self) -> str:
        """The file, as messages name it."""
        return str(self.file)


PhotoSource = Path | PhotoList
"""A folder, searched recursively, or a list."""


def photo_source(path: Path, root: Path | None = None) -> PhotoSource:
    """The photos that a path stands for: those below a folder, or those that a file lists.

    Args:
        path: a folder or a list; what does not exist is taken for a folder.
        root: where relative paths of a list begin; None for the list's own folder.
    """
    return PhotoList(path, root or path.parent) if path.is_file() else path


def name_of(photo: Path, source: PhotoSource) -> str:
    """A photo's path relative to its source, with forward slashes; in full where it lies outside.

    It is the same on every machine, and what labels files call the photo.
    """
    root = source.root if isinstance(source, PhotoList) else source
    return photo.relative_to(root).as_posix() if photo.is_relative_to(root) else photo.as_posix()


def class_folder(photo: Path, source: PhotoSource) -> str:
    """Name of the folder that says a photo's class; empty where there is none.

    In a folder it is the topmost one on the way to the photo, in a list the one that it lies in.
    """
    if isinstance(source, PhotoList):
        return photo.parent.name
    return name_of(photo, source).rpartition("/")[0].partition("/")[0]


def read_list(source: PhotoList) -> Iterator[Path]:
    """The photos of a list, in its order.

    Raises:
        UserError: it cannot be read, or names a file twice or one that is not there.
    """
    try:
        lines = source.file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The photo list {source} cannot be read ({error}); repair it.") from error
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        path = source.root / text
        if not os.path.lexists(path):
            raise UserError(
                f"Line {number} of the photo list {source} names {text!r}, which is not in "
                f"{source.root}; correct it, or say with --photos-root where paths begin."
            )
        if str(path) in seen:
            raise UserError(f"The photo list {source} names {text!r} twice; remove one of them.")
        seen.add(str(path))
        yield path
