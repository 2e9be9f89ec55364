"""Folders are searched, good files become upright RGB, bad files are refused one by one."""

import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.photos import (
    Skipped,
    content_hash,
    describe_skipped,
    list_photos,
    open_photo,
    scan_photos,
)
from pipeline.errors import UserError


def opened(path: Path) -> Image.Image:
    image = open_photo(path)
    assert isinstance(image, Image.Image), image
    return image


def reason(path: Path) -> str:
    skipped = open_photo(path)
    assert isinstance(skipped, Skipped) and skipped.path == path
    return skipped.reason


def png_header(width: int, height: int) -> bytes:
    """A PNG file of the given size without any pixel."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 8) + b"IDAT" + bytes(12)


def test_list_is_recursive_sorted_and_by_suffix(tmp_path, write_photo):
    names = ["b.png", "a/2.JPG", "a/1.jpeg", "a/deep/x.webp", "c.bmp"]
    for name in names:
        write_photo(name)
    (tmp_path / "notes.txt").write_text("no photo")
    found = [path.relative_to(tmp_path).as_posix() for path in list_photos(tmp_path)]
    assert found == ["a/1.jpeg", "a/2.JPG", "a/deep/x.webp", "b.png", "c.bmp"]


def test_list_follows_linked_folders_once(tmp_path, write_photo):
    write_photo("elsewhere/x.png")
    write_photo("photos/y.png")
    (tmp_path / "photos/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/loop").symlink_to(tmp_path / "photos")
    assert [path.name for path in list_photos(tmp_path / "photos")] == ["x.png", "y.png"]


def test_missing_folder_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list_photos(tmp_path / "nowhere")


def test_folder_without_photos_is_the_users_error(tmp_path):
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(UserError, match="holds no photo"):
        list_photos(tmp_path)


def test_hash_is_that_of_the_content(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert content_hash(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    colour = Image.new("RGB", (8, 6), (255, 255, 255))
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    colour.convert(mode).save(path)
    image = opened(path)
    assert (image.mode, image.size) == ("RGB", (8, 6))
    assert np.asarray(image).min() >= 250  # white stays white


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    codes = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(codes).save(tmp_path / "x.png")
    assert np.asarray(opened(tmp_path / "x.png"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparent_palette_keeps_its_colours(tmp_path):
    palette = Image.new("RGB", (4, 4), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "x.png", transparency=bytes([0, 128]))
    assert opened(tmp_path / "x.png").getpixel((0, 0)) == (10, 200, 30)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to the right
    image = Image.new("RGB", (20, 10))
    image.paste((255, 255, 255), (0, 0, 10, 10))
    image.save(tmp_path / "x.jpg", exif=exif)
    upright = opened(tmp_path / "x.jpg")
    assert upright.size == (10, 20)
    assert upright.getpixel((5, 2)) == (255, 255, 255)


def test_zero_bytes_are_refused(tmp_path):
    (tmp_path / "x.jpg").touch()
    assert reason(tmp_path / "x.jpg") == "empty file"


def test_text_is_refused(tmp_path):
    (tmp_path / "x.jpg").write_text("not a photo")
    assert reason(tmp_path / "x.jpg") == "not an image"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_truncated_files_are_refused(write_photo, suffix):
    path = write_photo(f"x.{suffix}", size=(64, 64))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert reason(path) in ("truncated or corrupt image", "not an image")


def test_corrupt_png_is_refused(write_photo):
    path = write_photo("x.png", size=(64, 64))
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)
    assert reason(path) == "truncated or corrupt image"


@pytest.mark.parametrize("side", [10_000, 40_000])
def test_huge_images_are_refused_before_they_are_decoded(tmp_path, side):
    (tmp_path / "x.png").write_bytes(png_header(side, side))
    assert reason(tmp_path / "x.png") == "more than 89 megapixels"


def test_pipes_and_dangling_links_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert reason(tmp_path / "pipe.jpg") == reason(tmp_path / "link.jpg") == "not a regular file"


def test_scan_counts_skipped_files_by_reason(tmp_path, write_photo):
    good = write_photo("good.png")
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "c.jpg").write_text("text")
    scan = scan_photos(tmp_path)
    assert [(photo.path, photo.sha256) for photo in scan.photos] == [(good, content_hash(good))]
    assert scan.summary() == "1 photos; skipped 3 files: 2 empty file, 1 not an image"


def test_too_few_readable_photos_are_the_users_error(tmp_path, write_photo):
    write_photo("good.png")
    (tmp_path / "bad.png").touch()
    with pytest.raises(UserError, match=r"1 usable photo where 2 are needed .*1 empty file"):
        scan_photos(tmp_path, minimum=2)


def test_nothing_skipped_is_said():
    assert describe_skipped([]) == "no file skipped"
