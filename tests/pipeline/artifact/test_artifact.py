"""Writing and reading an artifact."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline.artifact import Artifact, BuiltLibrary, read_artifact
from pipeline.errors import UserError
from tvm_passes.aot import StoredWeights

from .conftest import LABELS, MODEL

Write = Callable[..., Artifact]


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_was_written_is_read_back(write: Write) -> None:
    written = write(extra_files={"report.html": b"<p>"})
    assert read_artifact(written.path) == written
    assert written.labels == LABELS
    assert written.manifest.model == MODEL
    assert written.manifest.tools["apache-tvm"]
    assert (written.path / "report.html").read_bytes() == b"<p>"


def test_the_manifest_hashes_every_other_file(write: Write) -> None:
    artifact = write()
    files = snapshot(artifact.path)
    del files["manifest.json"]
    hashes = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    assert artifact.manifest.files == hashes
    assert {"labels.txt", "include/pocketvit.h", "lib/x86-64/libpocketvit_colours.so"} <= set(files)


def test_the_manifest_repeats_the_sizes_of_the_libraries(write: Write) -> None:
    artifact = write()
    entry = artifact.manifest.libraries["x86-64"]
    assert entry.file_bytes == artifact.library("x86-64").stat().st_size
    assert (entry.isa, entry.layers) == ("portable", ("sum_colours",))


def test_the_manifest_sums_the_weights_by_their_width(
    write: Write, libraries: list[BuiltLibrary]
) -> None:
    weights = tuple(StoredWeights("layer", *each) for each in [(8, 300), (4, 20), (8, 11)])
    report = replace(libraries[0].report, weights=weights)
    artifact = write(libraries=[replace(libraries[0], report=report)])
    library = read_artifact(artifact.path).manifest.libraries["x86-64"]
    assert library.weight_bytes == 331
    assert library.weight_bytes_by_bits == {4: 20, 8: 311}


@pytest.mark.parametrize("name", ["labels.txt", "lib/x86-64/libpocketvit_colours.so"])
def test_a_changed_or_missing_file_is_named(name: str, write: Write) -> None:
    artifact = write()
    file = artifact.path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is not the file"):
        read_artifact(artifact.path)
    file.unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        read_artifact(artifact.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"abi_version": "x"}, "abi_version"),
        ({"files": {"../secret": "0" * 64}}, "inside the artifact"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_foreign_or_damaged_manifest_is_refused(
    change: dict[str, object], message: str, write: Write
) -> None:
    path = write().path
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(UserError, match=message):
        read_artifact(path)


def test_a_folder_without_manifest_and_broken_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_artifact(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_artifact(tmp_path)


def test_a_target_that_was_not_built_is_answered_with_those_that_were(write: Write) -> None:
    with pytest.raises(UserError, match="only for .*x86-64"):
        write().library("android-arm64")


def test_an_older_artifact_is_replaced_as_a_whole(write: Write, tmp_path: Path) -> None:
    write(extra_files={"old.html": b""})
    artifact = write()
    assert "old.html" not in snapshot(artifact.path)
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
    assert read_artifact(artifact.path) == artifact


def test_a_folder_that_is_no_artifact_is_not_replaced(write: Write, tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "thesis.tex").touch()
    with pytest.raises(UserError, match="is no artifact"):
        write()
    assert (tmp_path / "artifact" / "thesis.tex").exists()


def test_a_full_disk_is_reported_and_changes_nothing(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(write().path)

    def full(source: Path, target: Path) -> NoReturn:
        Path(target).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy", full)
    with pytest.raises(UserError, match="No space left on device"):
        write()
    assert snapshot(tmp_path / "artifact") == before
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


@pytest.mark.parametrize("labels", [("red",), ("red", "green", ""), ("red", "gre\nen", "blue")])
def test_labels_that_do_not_fit_are_refused(labels: tuple[str, ...], write: Write) -> None:
    with pytest.raises(UserError, match="label"):
        write(labels=labels)
