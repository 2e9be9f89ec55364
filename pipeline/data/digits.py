"""scikit-learn's handwritten digits as small colour photos, the data of the demo.

1,797 digits of 8x8 pixels (E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository, 1998; the part that scikit-learn bundles). Each is drawn in a random
colour on a random background, so that the task needs more than a threshold.
"""

import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import UserError

CLASSES = 10
PHOTO_SIZE = 64
_CALIBRATION_SHARE = 0.11
_VALIDATION_SHARE = 0.23
_CONTRAST = 0.45  # smallest difference of brightness between digit and background, in [0, 1]
_NOISE = 0.03  # standard deviation of the pixel noise, in [0, 1]


@dataclass(frozen=True)
class Digits:
    """Digits of one part of the data.

    Attributes:
        glyphs: uint8 `[N, 8, 8]`, ink in 0 to 16.
        labels: int64 `[N]`, the digit.
        seed: of the colours, so that no two parts share them.
    """

    glyphs: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    seed: int

    def photos(self, version: int = 0, size: int = PHOTO_SIZE) -> npt.NDArray[np.uint8]:
        """Draw all digits; another version gives other colours.

        Returns:
            uint8 `[N, size, size, 3]`, RGB.
        """
        rng = np.random.default_rng([self.seed, version])
        return np.stack([draw(glyph, rng, size) for glyph in self.glyphs])


@dataclass(frozen=True)
class DigitSplit:
    """Three disjoint parts, each with all classes in equal shares."""

    train: Digits
    calibration: Digits
    validation: Digits


def split_digits() -> DigitSplit:
    """Split the digits; every call and every machine gives the same parts.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        data = import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise UserError(
            "The demo's digits need scikit-learn; run: pip install 'pocketvit[demo]'."
        ) from error
    glyphs, labels = data.images.astype(np.uint8), data.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for digit in range(CLASSES):
        members = order[labels[order] == digit]
        first = round(len(members) * _CALIBRATION_SHARE)
        second = first + round(len(members) * _VALIDATION_SHARE)
        for part, indices in zip(parts, np.split(members, [first, second]), strict=True):
            part.extend(indices)
    calibration, validation, train = (
        Digits(glyphs[part], labels[part], seed) for seed, part in enumerate(parts)
    )
    return DigitSplit(train, calibration, validation)


def draw(
    glyph: npt.NDArray[np.uint8], rng: np.random.Generator, size: int = PHOTO_SIZE
) -> npt.NDArray[np.uint8]:
    """Draw a digit in one colour on a background that runs from one colour to another.

    Args:
        glyph: uint8 `[8, 8]`, ink in 0 to 16.
        rng: source of colours, direction and noise.
        size: side of the photo in pixels.

    Returns:
        uint8 `[size, size, 3]`, RGB; light on dark or dark on light.
    """
    glyph = (glyph * 15).astype(np.uint8)
    ink = Image.fromarray(glyph).resize((size, size), Image.Resampling.BICUBIC)
    ink_share = np.asarray(ink, dtype=np.float64)[..., None] / 240
    limit = (1 - _CONTRAST) / 2
    begin, end = rng.uniform(0, limit, (2, 3))
    colour = rng.uniform(1 - limit, 1, 3)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size][..., None] / size - 0.5
    ramp = np.clip(0.5 + x * np.cos(angle) + y * np.sin(angle), 0, 1)
    background = begin + (end - begin) * ramp
    photo = background + (colour - background) * ink_share
    if rng.random() < 0.5:
        photo = 1 - photo
    photo = photo + rng.normal(0, _NOISE, photo.shape)
    return np.asarray(np.rint(np.clip(photo, 0, 1) * 255), dtype=np.uint8)


def write_digits(folder: Path, size: int = PHOTO_SIZE) -> None:
    """Write `calibration/<digit>/*.png` and `validation/<digit>/*.png` below a folder.

    Args:
        folder: created if needed; files of the same names are overwritten.
        size: side of the photos in pixels.

    Raises:
        UserError: scikit-learn is not installed.
    """
    split = split_digits()
    for name, part in {"calibration": split.calibration, "validation": split.validation}.items():
        photos = zip(part.photos(size=size), part.labels, strict=True)
        for index, (photo, label) in enumerate(photos):
            path = folder / name / str(label) / f"{index:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo).save(path)


if __name__ == "__main__":  # python -m pipeline.data.digits FOLDER
    write_digits(Path(sys.argv[1]))
