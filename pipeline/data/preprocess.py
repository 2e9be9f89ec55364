"""Photo -> the uint8 pixels that the network takes."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data.photos import Photo, Skipped, content_hash, open_photo
from pipeline.data.preprocessing import INTERPOLATIONS, Preprocessing

_FILTERS = {name: Image.Resampling[name.upper()] for name in INTERPOLATIONS}

_LONGEST_SIDES = 50


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Resize and centre-crop an RGB image.

    Normalisation is no part of it: mean and standard deviation are folded into the network.

    Returns:
        uint8 `[input_size, input_size, 3]`, RGB, contiguous.

    Raises:
        ValueError: the image is smaller than the crop (with `resize="none"`), or so narrow that
            resizing its shorter side would fill the memory.
    """
    size = preprocessing.input_size
    resized = _resized_size(image, preprocessing)
    if max(resized) > _LONGEST_SIDES * min(resized):
        raise ValueError(f"one side over {_LONGEST_SIDES} times the other")
    if resized != image.size:
        image = image.resize(resized, _FILTERS[preprocessing.interpolation])
    if min(image.size) < size:
        raise ValueError(f"smaller than {size}x{size} pixels")
    # Rounded like torchvision's CenterCrop, which timm's models were evaluated with.
    left, top = (round((side - size) / 2) for side in image.size)
    cropped = image.crop((left, top, left + size, top + size))
    return np.array(cropped, dtype=np.uint8)


def _resized_size(image: Image.Image, preprocessing: Preprocessing) -> tuple[int, int]:
    side = preprocessing.resized_side
    width, height = image.size
    if preprocessing.resize == "none":
        return width, height
    if preprocessing.resize == "squash":
        return side, side
    # The longer side is cut, not rounded, like torchvision's Resize.
    return (side, side * height // width) if width <= height else (side * width // height, side)


def load_photo(path: Path, preprocessing: Preprocessing) -> Photo | Skipped:
    """Read a file, hash it and prepare its pixels, or say why that is not possible."""
    image = open_photo(path)
    if isinstance(image, Skipped):
        return image
    try:
        return Photo(path, content_hash(path), to_pixels(image, preprocessing))
    except ValueError as error:
        return Skipped(path, str(error))
