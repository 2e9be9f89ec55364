"""A list of photos does what a folder does."""

import shutil
from pathlib import Path

import pytest

from pipeline.data.calibration import calibration_images
from pipeline.data.labels import label_photos
from pipeline.data.photos import list_photos
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.source import PhotoList, class_folder, name_of, photo_source
from pipeline.errors import UserError

NAMES = ("0/a.png", "0/b.png", "1/a.png", "1/b.png")


@pytest.fixture
def photos(tmp_path, write_photo) -> Path:
    """A folder of four photos in two classes."""
    for name in NAMES:
        write_photo(f"photos/{name}")
    return tmp_path / "photos"


def write_list(file: Path, *lines: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines))
    return file


def test_a_folder_stands_for_itself_and_a_file_for_a_list(photos, tmp_path):
    file = write_list(tmp_path / "list.txt", "photos/0/a.png")
    assert photo_source(photos) == photos
    assert photo_source(file) == PhotoList(file, tmp_path)
    assert photo_source(file, photos) == PhotoList(file, photos)


def test_paths_begin_at_the_root_and_comments_do_not_count(photos, tmp_path):
    file = write_list(tmp_path / "a/list.txt", "# half", "", "1/a.png", " 0/b.png ")
    source = photo_source(file, photos)
    assert list_photos(source) == [photos / "0/b.png", photos / "1/a.png"]


def test_without_a_root_paths_begin_at_the_folder_of_the_list(photos, tmp_path):
    source = photo_source(write_list(tmp_path / "a/list.txt", "../photos/1/a.png"))
    (path,) = list_photos(source)
    assert path.read_bytes() == (photos / "1/a.png").read_bytes()
    assert (name_of(path, source), class_folder(path, source)) == ("../photos/1/a.png", "1")


def test_absolute_paths_may_lie_anywhere(photos, tmp_path):
    source = photo_source(write_list(tmp_path / "a/list.txt", str(photos / "1/b.png")))
    assert list_photos(source) == [photos / "1/b.png"]
    assert class_folder(photos / "1/b.png", source) == "1"


def test_a_list_of_all_photos_is_labelled_and_drawn_like_their_folder(photos, tmp_path):
    source = photo_source(write_list(tmp_path / "list.txt", *reversed(NAMES)), photos)
    assert label_photos(source, 10).files == label_photos(photos, 10).files
    listed, found = (calibration_images(s, 3, 7, Preprocessing(16)) for s in (source, photos))
    assert [photo.path for photo in listed] == [photo.path for photo in found]


def test_a_labels_file_names_photos_as_the_list_does(photos, tmp_path):
    source = photo_source(write_list(tmp_path / "list.txt", *NAMES[:2]), photos)
    labels = write_list(tmp_path / "labels.txt", "0/a.png 4", "1/a.png 5")
    labelling = label_photos(source, 10, labels)
    assert [(file.path.name, file.label) for file in labelling.files] == [("a.png", 4)]
    assert "1 of 2 photos are labelled" in labelling.rule


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "names no photo"),
        (("# nothing",), "names no photo"),
        (("0/a.png", "0/c.png"), r"Line 2 .*'0/c\.png', which is not in .*--photos-root"),
        (("0/a.png", "0/./a.png"), r"names '0/\./a\.png' twice"),
    ],
)
def test_wrong_lists_are_one_sentence(photos, tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        list_photos(photo_source(write_list(tmp_path / "list.txt", *lines), photos))


def test_a_list_that_is_no_text_is_refused(photos):
    with pytest.raises(UserError, match="cannot be read"):
        list_photos(photo_source(photos / "0/a.png"))


def test_bad_files_of_a_list_are_passed_over(photos, tmp_path):
    (photos / "0/a.png").write_bytes(b"")
    source = photo_source(write_list(tmp_path / "list.txt", *NAMES), photos)
    assert len(calibration_images(source, 4, 0, Preprocessing(16))) == 3
    with pytest.raises(UserError, match=r"list\.txt has 3 usable photos where 4"):
        calibration_images(source, 4, 0, Preprocessing(16), minimum=4)


def test_links_of_a_list_are_followed(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "real")
    shutil.rmtree(photos)
    photos.symlink_to(tmp_path / "real")
    source = photo_source(write_list(tmp_path / "list.txt", *NAMES), photos)
    assert len(list_photos(source)) == 4
