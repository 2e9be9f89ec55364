"""The hash of several files and folders."""

from pathlib import Path

import pytest

from pipeline.files.hashing import sha256_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One folder with two files and one with byte code beside its file."""
    for name in ("a/x.py", "a/deep/y.toml", "b/z.py", "b/__pycache__/z.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_it_follows_contents_and_names_of_files_at_any_depth(root: Path) -> None:
    found = {sha256_tree(root, ["a"])}
    (root / "a/deep/y.toml").write_text("other")
    found.add(sha256_tree(root, ["a"]))
    (root / "a/deep/y.toml").rename(root / "a/deep/w.toml")
    found.add(sha256_tree(root, ["a"]))
    (root / "a/new.py").touch()
    found.add(sha256_tree(root, ["a"]))
    assert len(found) == 4


def test_other_folders_and_byte_code_do_not_matter(root: Path) -> None:
    before = sha256_tree(root, ["a", "b/z.py"])
    (root / "b/new.py").touch()
    assert sha256_tree(root, ["a", "b/z.py"]) == before
    before = sha256_tree(root, ["b"])
    (root / "b/__pycache__/z.pyc").write_text("compiled again")
    assert sha256_tree(root, ["b"]) == before


def test_order_and_repetition_do_not_matter(root: Path) -> None:
    assert sha256_tree(root, ["a", "b"]) == sha256_tree(root, ["b", "a", "a/x.py"])


def test_a_name_without_a_file_is_an_error(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        sha256_tree(root, ["a", "nowhere"])
