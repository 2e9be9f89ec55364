"""What is calibrated on, what is validated on, and that no photo is in both."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.data.calibration import calibration_images
from pipeline.data.labels import label_photos
from pipeline.data.photos import (
    HashedPath,
    Photo,
    Skipped,
    content_hash,
    describe_skipped,
    list_photos,
    require_photos,
)
from pipeline.data.preprocess import load_photo
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.source import PhotoSource, name_of
from pipeline.data.validation import hash_files, refuse_overlap, validation_photos
from pipeline.errors import UserError
from pipeline.progress import Step
from pipeline.stages.workspace import Workspace


@dataclass(frozen=True)
class ValidationPhoto:
    """A usable photo: its file, the hash of its content and its class index."""

    path: Path
    sha256: str
    label: int


@dataclass(frozen=True)
class ValidationSet:
    """The photos that accuracy is measured on.

    Attributes:
        source: where they are.
        photos: those that can be used.
        rule: one sentence that says how they were labelled.
        skipped: count of the others by reason.
        preprocessing: how they are prepared.
    """

    source: PhotoSource
    photos: tuple[ValidationPhoto, ...]
    rule: str
    skipped: dict[str, int]
    preprocessing: Preprocessing

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class indices `[N]`."""
        return np.array([photo.label for photo in self.photos], np.int64)

    def spread(self, count: int) -> npt.NDArray[np.int64]:
        """Indices of `count` photos, or of all when there are fewer, evenly from first to last."""
        total = len(self.photos)
        return np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)

    def pixels(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Pixels uint8 `[stop - start, H, W, 3]` of consecutive photos.

        Raises:
            UserError: a file is not what it was.
        """
        return np.stack([self._pixels(photo) for photo in self.photos[start:stop]])

    def images(self, indices: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.uint8]]:
        """Images uint8 `[1, H, W, 3]` of some photos, one at a time."""
        return (self.pixels(int(index), int(index) + 1) for index in indices)

    def _pixels(self, photo: ValidationPhoto) -> npt.NDArray[np.uint8]:
        loaded = load_photo(photo.path, self.preprocessing)
        if not isinstance(loaded, Photo) or loaded.sha256 != photo.sha256:
            raise UserError(f"{photo.path} changed while it was in use; run the command again.")
        return loaded.pixels


def draw_calibration(
    workspace: Workspace,
    source: PhotoSource,
    count: int,
    seed: int,
    preprocessing: Preprocessing,
    most: int | None = None,
) -> list[Photo]:
    """Draw the photos to calibrate on, and to train on.

    Args:
        workspace: hears of it.
        source: of the photos.
        count: number of photos that are needed.
        seed: selects another draw.
        preprocessing: the model's.
        most: photos that are drawn where there are enough; `count` unless given.

    Raises:
        UserError: there are fewer than `count` usable photos.
    """
    most = count if most is None else most
    skipped: list[Skipped] = []
    with workspace.reporter.step("read calibration photos"):
        photos = calibration_images(source, most, seed, preprocessing, count, skipped.append)
    workspace.reporter.note(
        f"Calibration on {len(photos)} photos of {source}, {describe_skipped(skipped)}."
    )
    return photos


def scan_validation(
    workspace: Workspace,
    source: PhotoSource,
    classes: int,
    preprocessing: Preprocessing,
    labels_file: Path | None = None,
    limit: int | None = None,
    calibration: PhotoSource | None = None,
) -> ValidationSet:
    """Label the validation photos and find those that can be used.

    Args:
        workspace: caches the result.
        source: see `label_photos`.
        classes: number of classes of the model.
        preprocessing: the model's.
        labels_file: the user's own labels.
        limit: use only so many photos, evenly from all classes.
        calibration: the calibration photos, none of which may be in `source`.

    Raises:
        UserError: the photos cannot be labelled, none can be used, or one is also in `calibration`.
    """
    labelling = label_photos(source, classes, labels_file)
    with workspace.reporter.step("hash validation photos"):
        hashed = hash_files(labelling)
        if calibration is not None:
            refuse_overlap(_same_sizes(calibration, hashed), hashed)
    hashes = {file.path: file.sha256 for file in hashed}
    positions = {file.path: index for index, file in enumerate(labelling.files)}

    def produce(result: Path, step: Step) -> None:
        skipped: list[Skipped] = []
        usable = []
        for photo in validation_photos(labelling, preprocessing, limit, on_skip=skipped.append):
            usable.append(positions[photo.path])
            step.advance(len(usable) + len(skipped))
        require_photos(source, len(usable), 1, skipped)
        reasons = Counter(skip.reason for skip in skipped)
        content = {"usable": sorted(usable), "skipped": dict(reasons.most_common())}
        (result / "photos.json").write_text(json.dumps(content))

    result = workspace.stage(
        "validation",
        {
            "preprocessing": preprocessing.to_dict(),
            "limit": limit,
            "files": [
                [name_of(file.path, source), hashes[file.path], file.label]
                for file in labelling.files
            ],
        },
        produce,
        total=min(limit or len(labelling.files), len(labelling.files)),
        title="check validation photos",
    )
    content = json.loads((result / "photos.json").read_text())
    chosen = (labelling.files[index] for index in content["usable"])
    photos = tuple(ValidationPhoto(file.path, hashes[file.path], file.label) for file in chosen)
    workspace.reporter.note(f"{labelling.rule} {_describe(content['skipped'])}")
    return ValidationSet(source, photos, labelling.rule, content["skipped"], preprocessing)


def _describe(skipped: dict[str, int]) -> str:
    reasons = (Skipped(Path(), reason) for reason, count in skipped.items() for _ in range(count))
    sentence = describe_skipped(reasons)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _same_sizes(source: PhotoSource, others: list[HashedPath]) -> list[HashedPath]:
    """Hashed photos of `source` that could equal one of `others`; the rest need no reading."""
    sizes = {file.path.stat().st_size for file in others}
    candidates = (path for path in list_photos(source) if path.is_file())
    return [
        HashedPath(path, content_hash(path)) for path in candidates if path.stat().st_size in sizes
    ]
