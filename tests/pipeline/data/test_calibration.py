"""Calibration photos are drawn evenly, reproducibly, around bad files."""

import shutil
from collections import Counter

import pytest
from PIL import Image

from pipeline.data.calibration import calibration_images
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.sampling import even_order
from pipeline.errors import UserError

SMALL = Preprocessing(16)


def fill(write_photo, root: str, **counts: int) -> None:
    for folder, count in counts.items():
        for index in range(count):
            write_photo(f"{root}/{folder}/{index}.png")


def names(photos, root):
    return [photo.path.relative_to(root).as_posix() for photo in photos]


def test_draw_is_even_over_subfolders(tmp_path, write_photo):
    fill(write_photo, "p", a=9, b=9, c=2)
    photos = calibration_images(tmp_path / "p", 10, 0, SMALL)
    assert Counter(photo.path.parent.name for photo in photos) == {"a": 4, "b": 4, "c": 2}
    assert len({photo.path for photo in photos}) == 10
    assert photos[0].pixels.shape == (16, 16, 3)


def test_draw_does_not_depend_on_where_the_folder_is(tmp_path, write_photo):
    fill(write_photo, "p", a=5, b=5)
    shutil.copytree(tmp_path / "p", tmp_path / "elsewhere/q")
    here = calibration_images(tmp_path / "p", 4, 7, SMALL)
    there = calibration_images(tmp_path / "elsewhere/q", 4, 7, SMALL)
    assert names(here, tmp_path / "p") == names(there, tmp_path / "elsewhere/q")
    assert [photo.sha256 for photo in here] == [photo.sha256 for photo in there]


def test_order_is_the_same_on_every_machine():
    files = [f"{folder}/{index}" for folder in "ab" for index in range(3)]
    order = even_order(files, lambda name: name, lambda name: name[0], seed=0)
    assert order == ["b/0", "a/2", "b/1", "a/0", "b/2", "a/1"]
    assert even_order(files[::-1], lambda name: name, lambda name: name[0], seed=0) == order


def test_another_seed_draws_other_photos(tmp_path, write_photo):
    fill(write_photo, "p", a=30)
    first, second = (calibration_images(tmp_path / "p", 5, seed, SMALL) for seed in (0, 1))
    assert names(first, tmp_path) != names(second, tmp_path)


def test_bad_files_are_replaced_and_reported(tmp_path, write_photo):
    fill(write_photo, "p", a=6)
    order = calibration_images(tmp_path / "p", 6, 0, SMALL)
    order[0].path.write_bytes(b"")
    skipped = []
    photos = calibration_images(tmp_path / "p", 4, 0, SMALL, on_skip=skipped.append)
    assert [photo.path for photo in photos] == [photo.path for photo in order[1:5]]
    assert [(skip.path, skip.reason) for skip in skipped] == [(order[0].path, "empty file")]


def test_too_few_usable_photos_are_the_users_error(tmp_path, write_photo):
    fill(write_photo, "p", a=3)
    assert len(calibration_images(tmp_path / "p", 10, 0, SMALL)) == 3
    with pytest.raises(UserError, match="3 usable photos where 8 .*fewer calibration_images"):
        calibration_images(tmp_path / "p", 10, 0, SMALL, minimum=8)


def test_blank_photos_are_good_for_nothing_but_beside_others(tmp_path, write_photo):
    for index in range(3):
        Image.new("RGB", (20, 20), (0, 0, index)).save(tmp_path / f"{index}.png")
    with pytest.raises(UserError, match="Every photo .* is of a single colour"):
        calibration_images(tmp_path, 3, 0, SMALL)
    write_photo("p.png")
    assert len(calibration_images(tmp_path, 4, 0, SMALL)) == 4
