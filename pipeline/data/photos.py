"""Find photos under a folder and open them, refusing bad files one by one."""

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.data.source import PhotoList, PhotoSource, name_of, read_list
from pipeline.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


class HashedFile(Protocol):
    """Anything that knows a file and the hash of its content."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the file's bytes."""


@dataclass(frozen=True)
class Photo:
    """A photo as the network takes it: file, content hash, uint8 `[H, W, 3]` RGB pixels."""

    path: Path
    sha256: str
    pixels: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class HashedPath:
    """A file and the SHA-256 of its content."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Skipped:
    """A file that cannot be used, and the reason, worded so that equal reasons can be counted."""

    path: Path
    reason: str


OnSkip = Callable[[Skipped], object]


@dataclass(frozen=True)
class Scan:
    """The files of a folder or list, divided into readable photos and skipped ones."""

    photos: tuple[HashedPath, ...]
    skipped: tuple[Skipped, ...]

    def summary(self) -> str:
        """Return one sentence such as "12 photos; skipped 2 files: 2 empty file"."""
        return f"{len(self.photos)} photos; {describe_skipped(self.skipped)}"


def list_photos(source: PhotoSource) -> list[Path]:
    """List the image files below a folder, or those of a list, sorted by relative path.

    Files of a folder count by their suffix alone; linked folders are followed, each real folder
    once.

    Raises:
        UserError: the folder is missing, or holds no file with a known suffix, or the list is
            empty or wrong.
    """
    photos = list(read_list(source)) if isinstance(source, PhotoList) else _below(source)
    if not photos:
        raise UserError(f"The photo list {source} names no photo; write one path per line.")
    return sorted(photos, key=lambda path: name_of(path, source).split("/"))


def _below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"The photo folder {folder} does not exist; name an existing folder.")
    photos = [path for path in _walk(folder) if path.suffix.lower() in SUFFIXES]
    if not photos:
        kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise UserError(f"The photo folder {folder} holds no photo; put {kinds} files there.")
    return photos


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        folders.sort()  # so that of two links to one folder always the same one counts
        if (real := os.path.realpath(root)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(root, name) for name in files)


def content_hash(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_photo(path: Path) -> Image.Image | Skipped:
    """Open a file as an upright 8-bit RGB image, or say why that is not possible.

    The EXIF orientation is applied; grey, palette, CMYK and 16-bit images are converted; an alpha
    channel is dropped, as training pipelines do. Refused are files that are empty, not images,
    truncated or corrupt, or have more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    if not path.is_file():  # a pipe would block, a dangling link would raise
        return Skipped(path, "not a regular file")
    try:
        if path.stat().st_size == 0:
            return Skipped(path, "empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return Skipped(path, f"more than {(Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels")
    except UnidentifiedImageError:
        return Skipped(path, "not an image")
    except PermissionError:
        return Skipped(path, "no permission to read")
    except Exception:  # decoders raise almost anything on a corrupt file
        return Skipped(path, "truncated or corrupt image")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per pixel; Pillow would clip at 255, not scale
        codes = np.clip(np.asarray(image, dtype=np.int64), 0, 65535) >> 8
        image = Image.fromarray(codes.astype(np.uint8))
    if image.mode == "P":  # transparency of a palette is only understood on the way to RGBA
        image = image.convert("RGBA")
    return image.convert("RGB")


def scan_photos(source: PhotoSource, minimum: int = 1) -> Scan:
    """Open every photo of a folder or list once.

    Args:
        source: the folder, searched recursively, or the list.
        minimum: number of readable photos that the caller needs.

    Raises:
        UserError: there is no photo, or fewer than `minimum` are readable.
    """
    photos: list[HashedPath] = []
    skipped: list[Skipped] = []
    for path in list_photos(source):
        image = open_photo(path)
        if isinstance(image, Skipped):
            skipped.append(image)
        else:
            photos.append(HashedPath(path, content_hash(path)))
    require_photos(source, len(photos), minimum, skipped)
    return Scan(tuple(photos), tuple(skipped))


def require_photos(
    source: PhotoSource,
    found: int,
    minimum: int,
    skipped: Iterable[Skipped],
    advice: str = "add photos or repair the skipped files",
) -> None:
    """Check that enough photos of a folder or list are usable.

    Raises:
        UserError: `found` is less than `minimum`; the message counts the skipped files.
    """
    if found < minimum:
        raise UserError(
            f"{source} has {found} usable photo{'s' * (found != 1)} where {minimum} are needed "
            f"({describe_skipped(skipped)}); {advice}."
        )


def describe_skipped(skipped: Iterable[Skipped]) -> str:
    """Count skipped files by reason, the most frequent first: "skipped 2 files: 2 empty file"."""
    reasons = Counter(skip.reason for skip in skipped)
    if not reasons:
        return "no file skipped"
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"skipped {reasons.total()} file{'s' * (reasons.total() > 1)}: {counts}"
