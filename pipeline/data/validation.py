"""The labelled photos that accuracy is measured on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.data.labels import Labelling
from pipeline.data.photos import HashedFile, HashedPath, OnSkip, Photo, content_hash
from pipeline.data.preprocess import load_photo
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.sampling import even_order
from pipeline.data.source import name_of
from pipeline.errors import UserError


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo, uint8 `[H, W, 3]` RGB pixels, with its class index."""

    path: Path
    sha256: str
    pixels: npt.NDArray[np.uint8]
    label: int


def validation_photos(
    labelling: Labelling,
    preprocessing: Preprocessing,
    limit: int | None = None,
    seed: int = 0,
    on_skip: OnSkip | None = None,
) -> Iterator[LabelledPhoto]:
    """Read labelled photos one at a time, so that a large set needs no memory.

    Args:
        labelling: the files and their classes.
        preprocessing: the model's.
        limit: number of photos to stop after; the classes then take turns.
        seed: selects another sample when there is a limit.
        on_skip: called with every file that cannot be used; another takes its place.

    Yields:
        The photos, without a limit in the order of `labelling`.
    """
    files = list(labelling.files)
    if limit is not None:
        files = even_order(
            files,
            name_of=lambda file: name_of(file.path, labelling.source),
            group_of=lambda file: file.label,
            seed=seed,
        )
    found = 0
    for file in files:
        if found == limit:
            return
        photo = load_photo(file.path, preprocessing)
        if isinstance(photo, Photo):
            found += 1
            yield LabelledPhoto(photo.path, photo.sha256, photo.pixels, file.label)
        elif on_skip is not None:
            on_skip(photo)


def hash_files(labelling: Labelling) -> list[HashedPath]:
    """Hash the files of a labelling, for `refuse_overlap` before any of them is evaluated."""
    return [HashedPath(file.path, content_hash(file.path)) for file in labelling.files]


def refuse_overlap(calibration: Iterable[HashedFile], validation: Iterable[HashedFile]) -> None:
    """Make sure that no photo was calibrated on and is evaluated too, whatever its name.

    Raises:
        UserError: files of equal content are in both; the message names the first three pairs.
    """
    calibrated = {photo.sha256: photo.path for photo in calibration}
    pairs = [
        (calibrated[photo.sha256], photo.path) for photo in validation if photo.sha256 in calibrated
    ]
    if pairs:
        first = ", ".join(f"{ours} = {theirs}" for ours, theirs in pairs[:3])
        raise UserError(
            f"{len(pairs)} validation photos are also calibration photos ({first}); accuracy "
            "would be flattered, so keep the two apart."
        )
