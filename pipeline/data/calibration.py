"""The photos that quantizers are calibrated on."""

from pipeline.data.photos import OnSkip, Photo, Skipped, list_photos, require_photos
from pipeline.data.preprocess import load_photo
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.sampling import even_order
from pipeline.data.source import PhotoSource, name_of
from pipeline.errors import UserError


def calibration_images(
    source: PhotoSource,
    count: int,
    seed: int,
    preprocessing: Preprocessing,
    minimum: int = 1,
    on_skip: OnSkip | None = None,
) -> list[Photo]:
    """Draw photos evenly from the subfolders of a folder, or from those of a list.

    The same files give the same photos in the same order on every machine. Files that cannot be
    used are passed over and others take their places.

    Args:
        source: a folder, searched recursively, or a list; labels are not needed.
        count: number of photos to draw; fewer are returned when there are no more.
        seed: selects another draw.
        preprocessing: the model's.
        minimum: number of photos below which calibration makes no sense.
        on_skip: called with every file passed over.

    Returns:
        At most `count` photos, each with uint8 pixels `[input_size, input_size, 3]`.

    Raises:
        UserError: there are fewer than `minimum` usable photos, or each is of a single colour.
    """
    order = even_order(
        list_photos(source),
        name_of=lambda path: name_of(path, source),
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
    advice = "add photos, or say in a recipe of your own that fewer calibration_images are enough"
    require_photos(source, len(photos), minimum, skipped, advice)
    if photos and all(_is_blank(photo) for photo in photos):
        raise UserError(
            f"Every photo drawn from {source} is of a single colour, which says nothing about "
            "ranges; calibrate on photos like those that the model is to see."
        )
    return photos


def _is_blank(photo: Photo) -> bool:
    return bool((photo.pixels == photo.pixels[0, 0]).all())
