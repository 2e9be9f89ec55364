"""Photos are resized and cropped as the preprocessing says, and never normalised."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.data.photos import Photo, Skipped, content_hash
from pipeline.data.preprocess import load_photo, to_pixels
from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import UserError


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("resize", ["shorter", "squash"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(90, 70), (61, 143), (32, 32), (20, 25)])
def test_output_is_a_square_of_uint8(size, interpolation, resize):
    preprocessing = Preprocessing(32, interpolation=interpolation, crop_pct=0.9, resize=resize)
    pixels = to_pixels(noise(*size), preprocessing)
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("interpolation", "pillow"),
    [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)],
)
def test_shorter_side_is_resized_then_the_centre_cropped(interpolation, pillow):
    image = noise(100, 80)
    # 32 / 0.8 = 40 for the shorter side, so 50 x 40, of which the centre begins at (9, 4)
    expected = np.asarray(image.resize((50, 40), pillow))[4:36, 9:41]
    preprocessing = Preprocessing(32, interpolation=interpolation, crop_pct=0.8)
    np.testing.assert_array_equal(to_pixels(image, preprocessing), expected)


def test_resized_side_is_rounded_down_as_in_timm():
    assert Preprocessing(224, crop_pct=0.9).resized_side == 248
    assert Preprocessing(256, crop_pct=0.9).resized_side == 284


def test_squash_resizes_both_sides():
    image = noise(60, 30)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(to_pixels(image, Preprocessing(32, resize="squash")), expected)


def test_none_crops_only():
    image = noise(50, 40)
    pixels = to_pixels(image, Preprocessing(32, crop_pct=0.5, resize="none"))
    np.testing.assert_array_equal(pixels, np.asarray(image)[4:36, 9:41])


def test_photo_of_the_input_size_is_left_alone():
    image = noise(32, 32)
    np.testing.assert_array_equal(to_pixels(image, Preprocessing(32)), np.asarray(image))


def test_photo_smaller_than_the_crop_is_skipped(write_photo):
    path = write_photo("x.png", size=(24, 16))
    skipped = load_photo(path, Preprocessing(32, resize="none"))
    assert skipped == Skipped(path, "smaller than 32x32 pixels")


def test_photo_that_would_fill_the_memory_is_skipped(write_photo):
    path = write_photo("x.png", size=(5000, 1))
    assert isinstance(load_photo(path, Preprocessing(256)), Skipped)


def test_loaded_photo_carries_path_hash_and_pixels(write_photo):
    path = write_photo("x.png", size=(16, 16))
    photo = load_photo(path, Preprocessing(16))
    assert isinstance(photo, Photo)
    assert (photo.path, photo.sha256) == (path, content_hash(path))
    np.testing.assert_array_equal(photo.pixels, np.asarray(Image.open(path)))


def test_fields_survive_json():
    preprocessing = Preprocessing(96, (0, 0.5, 1), (1, 2, 3), "bicubic", 0.875, "squash")
    assert Preprocessing(**json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_size", 0),
        ("mean", (0, 0)),
        ("std", (1, 0, 1)),
        ("interpolation", "cubic"),
        ("crop_pct", 1.5),
        ("resize", "longest"),
    ],
)
def test_field_out_of_range_is_named(field, value):
    with pytest.raises(UserError, match=f"preprocessing's {field} is"):
        replace(Preprocessing(32), **{field: value})
