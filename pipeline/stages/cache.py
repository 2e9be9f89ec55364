"""A cache of finished stages: an interrupted run goes on where it stopped."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from pipeline.files.hashing import sha256_file
from pipeline.files.staging import staged_directory


def run_stage(
    cache_dir: Path, name: str, inputs_hash: str, produce: Callable[[Path], None]
) -> Path:
    """Folder with the result of a stage, made by ``produce`` unless it is there already.

    It is written under a temporary name and renamed, so that what is there is complete.

    Args:
        cache_dir: folder of all results.
        name: of the stage.
        inputs_hash: of all that the result depends on, see ``hash_inputs``.
        produce: writes the result into the empty folder that it is given.

    Raises:
        UserError: the disk is full.
    """
    key = hashlib.sha256(f"{name}\n{inputs_hash}".encode()).hexdigest()
    result = cache_dir / f"{name}-{key[:20]}"
    if not result.is_dir():
        with staged_directory(result, replace=False) as staged:
            produce(staged)
    return result


def hash_inputs(values: Mapping[str, JsonValue], files: Sequence[Path] = ()) -> str:
    """SHA-256 of named values and of the contents of files, in this order; not of their paths."""
    parts = [json.dumps(values, sort_keys=True), *map(sha256_file, files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
