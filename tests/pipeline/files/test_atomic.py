"""A file is whole or as before."""

import os

import pytest

from pipeline.files.atomic import write_atomically


def test_folders_are_made_and_older_content_is_replaced(tmp_path):
    path = tmp_path / "a" / "b.json"
    for text in ("first", "second"):
        write_atomically(path, text)
        assert path.read_text() == text
    assert [file.name for file in path.parent.iterdir()] == ["b.json"]


def test_a_failure_leaves_the_older_content_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "b.json"
    write_atomically(path, "first")

    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "second")
    assert path.read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["b.json"]
