"""The photos that quantizers are calibrated on."""

from pathlib import Path

from pipeline.data.photos import OnSkip, Photo, Skipped, list_photos, require_photos
from pipeline.data.preprocess import load_photo
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.sampling import even_order


def calibration_images(
    folder: Path,
    count: int,
    seed: int,
    preprocessing: Preprocessing,
    minimum: int = 1,
    on_skip: OnSkip | None = None,
) -> list[Photo]:
    """Draw photos evenly from the subfolders of a folder.

    The same files give the same photos in the same order on every machine. Files that cannot be
    used are passed over and others take their places.

    Args:
        folder: searched recursively; labels are not needed.
        count: number of photos to draw; fewer are returned when the folder has no more.
        seed: selects another draw.
        preprocessing: the model's.
        minimum: number of photos below which calibration makes no sense.
        on_skip: called with every file passed over.

    Returns:
        At most `count` photos, each with uint8 pixels `[input_size, input_size, 3]`.

    Raises:
        UserError: the folder is missing or empty, or has fewer than `minimum` usable photos.
    """
    order = even_order(
        list_photos(folder),
        name_of=lambda path: path.relative_to(folder).as_posix(),
        group_of=lambda path: path.parent,
        seed=seed,
    )
    photos: list[Photo] = []
    skipped: list[Skipped] = []
    for path in order:
        if len(photos) == count:
            break
        photo = load_photo(path, preprocessing)
        if isinstance(photo, Photo):
            photos.append(photo)
            continue
        skipped.append(photo)
        if on_skip is not None:
            on_skip(photo)
    require_photos(folder, len(photos), minimum, skipped)
    return photos
