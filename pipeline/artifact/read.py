"""`read_artifact`: an artifact directory, verified."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline.artifact.manifest import MANIFEST, Manifest
from pipeline.errors import UserError
from pipeline.files.hashing import sha256_file


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk.

    Attributes:
        path: the directory.
        manifest: what it holds.
        labels: class names in the order of the logits.
    """

    path: Path
    manifest: Manifest
    labels: tuple[str, ...]

    def library(self, target: str) -> Path:
        """The library for ``target``.

        Raises:
            UserError: the artifact has none for it.
        """
        entries = self.manifest.libraries
        if target not in entries:
            raise UserError(
                f"{self.path} has no library for {target}, only for {', '.join(sorted(entries))}; "
                "build it for that target."
            )
        return self.path / entries[target].file


def read_artifact(path: Path) -> Artifact:
    """Read an artifact and verify the hash of every file.

    Raises:
        UserError: it is no artifact, of another format version, or a file is missing or changed;
            the message names it.
    """
    manifest = _read_manifest(path / MANIFEST)
    for name, expected in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise UserError(f"{file} is missing; build the artifact again.")
        if sha256_file(file) != expected:
            raise UserError(
                f"{file} is not the file that the manifest describes; build the artifact again."
            )
    labels = (path / manifest.labels).read_text(encoding="utf-8").splitlines()
    return Artifact(path, manifest, tuple(labels))


def _read_manifest(path: Path) -> Manifest:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; name an artifact directory.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); build the artifact again.") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != 1:
        raise UserError(
            f"{path} has format version {version}, this version of PocketViT reads 1; "
            "build the artifact again."
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path} is damaged at {where!r} ({first['msg']}); build the artifact again."
        ) from error
