"""Two halves of a set of photos, the same ones on every machine."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.photos import HashedFile


@dataclass(frozen=True)
class Split:
    """Two halves that share no content, sorted by path; the first one may be the smaller by one.

    Attributes:
        a: the half of the smaller hashes.
        b: the other one.
        repeated: files left out because another one has the same content.
    """

    a: tuple[Path, ...]
    b: tuple[Path, ...]
    repeated: tuple[Path, ...]


def halve(photos: Iterable[HashedFile]) -> Split:
    """Split photos in two by the order of the SHA-256 of their content.

    Names and places do not matter; of equal contents the first path, in alphabetical order, counts.
    """
    first: dict[str, Path] = {}
    repeated = []
    for photo in sorted(photos, key=lambda photo: photo.path):
        if first.setdefault(photo.sha256, photo.path) != photo.path:
            repeated.append(photo.path)
    ordered = [first[digest] for digest in sorted(first)]
    middle = len(ordered) // 2
    return Split(tuple(sorted(ordered[:middle])), tuple(sorted(ordered[middle:])), tuple(repeated))
