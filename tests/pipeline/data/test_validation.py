"""Labelled photos are streamed, sampled evenly, and kept apart from calibration."""

import shutil
from collections import Counter

import pytest

from pipeline.data.calibration import calibration_images
from pipeline.data.labels import label_photos
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.validation import hash_files, refuse_overlap, validation_photos
from pipeline.errors import UserError

SMALL = Preprocessing(16)


@pytest.fixture
def labelling(tmp_path, write_photo):
    """Three classes of five photos each."""
    for label in range(3):
        for index in range(5):
            write_photo(f"val/{label}/{index}.png")
    return label_photos(tmp_path / "val", 3)


def test_photos_come_in_order_with_their_labels(labelling):
    photos = list(validation_photos(labelling, SMALL))
    assert [(photo.path, photo.label) for photo in photos] == [
        (file.path, file.label) for file in labelling.files
    ]
    assert photos[0].pixels.shape == (16, 16, 3)


def test_limit_takes_evenly_from_all_classes(labelling):
    photos = list(validation_photos(labelling, SMALL, limit=6))
    assert Counter(photo.label for photo in photos) == {0: 2, 1: 2, 2: 2}


def test_bad_files_are_replaced_within_the_limit_and_reported(labelling):
    bad = next(validation_photos(labelling, SMALL, limit=1)).path
    bad.write_bytes(b"")
    skipped = []
    photos = list(validation_photos(labelling, SMALL, limit=14, on_skip=skipped.append))
    assert len(photos) == 14
    assert [skip.path for skip in skipped] == [bad]


def test_reading_is_lazy(labelling):
    photos = validation_photos(labelling, SMALL)
    next(photos)
    for file in labelling.files:
        file.path.unlink()
    assert list(photos) == []


def test_overlap_is_found_by_content_and_named(labelling, tmp_path, write_photo):
    write_photo("cal/own.png")
    copied = tmp_path / "cal/renamed.png"
    shutil.copy(labelling.files[3].path, copied)
    calibration = calibration_images(tmp_path / "cal", 10, 0, SMALL)
    with pytest.raises(UserError) as error:
        refuse_overlap(calibration, hash_files(labelling))
    assert str(error.value).startswith("1 validation photos")
    assert f"{copied} = {labelling.files[3].path}" in str(error.value)


def test_disjoint_photos_pass(labelling, tmp_path, write_photo):
    write_photo("cal/own.png")
    calibration = calibration_images(tmp_path / "cal", 10, 0, SMALL)
    refuse_overlap(calibration, validation_photos(labelling, SMALL))
