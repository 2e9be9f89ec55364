"""The first labelling rule that applies wins, and says so."""

import json
import os
from pathlib import Path

import pytest

from pipeline.data.labels import imagenet_synsets, label_photos
from pipeline.errors import UserError


@pytest.fixture
def folder(tmp_path, write_photo):
    """Make a function that fills a folder with one photo per name."""

    def make(*names: str) -> Path:
        for name in names:
            write_photo(f"val/{name}")
        return tmp_path / "val"

    return make


@pytest.fixture
def labels_file(tmp_path):
    """Make a function that writes a labels file."""

    def make(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return make


def labels_of(root, classes, file=None):
    labelling = label_photos(root, classes, file)
    return {item.path.relative_to(root).as_posix(): item.label for item in labelling.files}


def test_numeric_folders_are_class_indices(folder):
    root = folder("0007/x.png", "12/deep/y.png")
    assert labels_of(root, 20) == {"0007/x.png": 7, "12/deep/y.png": 12}
    assert "numeric folder names; 2 of 2 photos" in label_photos(root, 20).rule


def test_numeric_folders_win_over_ranks(folder):
    assert labels_of(folder("0/x.png", "2/y.png", "1/z.png"), 3)["2/y.png"] == 2


def test_index_beyond_the_classes_is_the_users_error(folder):
    with pytest.raises(UserError, match=r"10/y.png is 10, but the model has 10 classes"):
        label_photos(folder("1/x.png", "10/y.png"), 10)


def test_synsets_are_imagenet_indices_for_a_model_with_a_thousand_classes(folder):
    root = folder("n01443537/x.png", "n15075141/y.png")
    assert labels_of(root, 1000) == {"n01443537/x.png": 1, "n15075141/y.png": 999}
    assert "ImageNet" in label_photos(root, 1000).rule


def test_synsets_are_ranks_for_a_model_with_fewer_classes(folder):
    root = folder("n01440764/x.png", "n15075141/y.png")
    assert labels_of(root, 2) == {"n01440764/x.png": 0, "n15075141/y.png": 1}
    assert "ranks of the 2 folder names" in label_photos(root, 2).rule


def test_bundled_synsets_are_complete_and_distinct():
    synsets = imagenet_synsets()
    assert len(set(synsets)) == 1000
    assert synsets[0] == "n01440764"


def test_ranks_are_alphabetical(folder):
    assert labels_of(folder("pear/x.png", "apple/y.png"), 2) == {"apple/y.png": 0, "pear/x.png": 1}


@pytest.mark.parametrize("names", [("apple/x.png", "pear/y.png"), ("x.png",), ("n01/x.png",)])
def test_folders_that_fit_no_rule_are_the_users_error(folder, names):
    with pytest.raises(UserError, match="cannot be labelled"):
        label_photos(folder(*names), 1000)


def test_photos_beside_the_class_folders_are_not_labelled(folder):
    root = folder("apple/x.png", "pear/y.png", "stray.png")
    assert "stray.png" not in labels_of(root, 2)
    assert "2 of 3 photos" in label_photos(root, 2).rule


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "# mine\nsub/x 1.png 3\n\ny.png\t0\n"),
        ("l.csv", 'file,label\n"sub/x 1.png",3\ny.png,0\n'),
        ("l.csv", "sub/x 1.png,3\ny.png,0\n"),
        ("l.json", json.dumps({"sub/x 1.png": 3, "./y.png": 0})),
        ("l.txt", "\ufeffsub\\x 1.png 3\r\ny.png 0\r\n"),
    ],
)
def test_labels_per_photo(folder, labels_file, name, text):
    root = folder("sub/x 1.png", "y.png", "unlisted.png")
    assert labels_of(root, 4, labels_file(name, text)) == {"sub/x 1.png": 3, "y.png": 0}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", "room 2\nroom 1\n"),
        ("c.csv", "room 2\nroom 1\n"),
        ("c.json", '["room 2", "room 1"]'),
    ],
)
def test_class_list(folder, labels_file, name, text):
    root = folder("room 1/x.png", "room 2/y.png")
    assert labels_of(root, 2, labels_file(name, text)) == {"room 1/x.png": 1, "room 2/y.png": 0}


def test_labels_file_wins_over_numeric_folders(folder, labels_file):
    file = labels_file("l.txt", "5/x.png 1")
    assert labels_of(folder("5/x.png"), 10, file) == {"5/x.png": 1}
    assert str(file) in label_photos(folder("5/x.png"), 10, file).rule


def test_absent_photos_of_the_labels_file_are_counted(folder, labels_file):
    rule = label_photos(folder("x.png"), 3, labels_file("l.txt", "x.png 1\ngone.png 2")).rule
    assert "1 of its photos are absent; 1 of 1 photos are labelled" in rule


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("l.txt", "", "is empty"),
        ("l.txt", "x.png 1\nx.png 2", "'x.png' twice"),
        ("l.txt", "x.png 1\ny.png cat", "not understood at 'y.png cat'"),
        ("l.txt", "elsewhere/x.png 1", "None of the photos"),
        ("l.txt", "x.png 9", "is 9, but the model has 3 classes"),
        ("l.json", "{", "cannot be read"),
        ("l.json", '{"x.png": "cat"}', "not understood"),
        ("c.txt", "apple\npear", "no class folder"),
    ],
)
def test_bad_labels_files_are_the_users_error(folder, labels_file, name, text, problem):
    with pytest.raises(UserError, match=problem):
        label_photos(folder("x.png"), 3, labels_file(name, text))


def test_class_folder_missing_from_the_list_is_the_users_error(folder, labels_file):
    with pytest.raises(UserError, match="class folder 'pear'"):
        label_photos(folder("apple/x.png", "pear/y.png"), 3, labels_file("c.txt", "apple"))


def test_missing_and_binary_labels_files_are_the_users_error(folder, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        label_photos(folder("x.png"), 3, tmp_path / "gone.txt")
    (tmp_path / "l.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        label_photos(folder("x.png"), 3, tmp_path / "l.txt")


@pytest.mark.skipif("POCKETVIT_DATA" not in os.environ, reason="POCKETVIT_DATA names no photo sets")
def test_real_photo_sets_are_labelled_as_documented():
    data = Path(os.environ.get("POCKETVIT_DATA", ""))
    by_number = label_photos(data / "imagenet_like", 1000)
    assert len(by_number.files) == 1000
    assert all(int(file.path.parent.name) == file.label for file in by_number.files)
    by_rank = label_photos(data / "imagenette/validation", 10)
    assert {file.label for file in by_rank.files} == set(range(10))
