"""Results of cells as files, so that a sweep that was killed goes on."""

import re
from pathlib import Path

from pydantic import JsonValue, ValidationError

from pipeline.compare.cell import Cell, CellResult
from pipeline.data.photos import content_hash, list_photos
from pipeline.data.source import PhotoSource, name_of
from pipeline.errors import UserError
from pipeline.files.atomic import write_atomically
from pipeline.quant.recipe import load_recipe
from pipeline.stages.cache import hash_inputs
from pipeline.stages.sources import code_version

CELLS = "cells"
_STAGES = {"simulated": ("float", "simulated"), "integer": ("float", "build", "integer", "lower")}


class Store:
    """The folder of a comparison.

    A file's name holds the hash of all that its figures depend on: what was computed from other
    photos, weights, recipes or code is not mistaken for a result of today.
    """

    def __init__(self, folder: Path) -> None:
        """Results are below `folder`, which is made when the first one is written."""
        self._folder = folder / CELLS
        self._hashes: dict[PhotoSource, JsonValue] = {}

    def path(self, cell: Cell) -> Path:
        """The file of a cell.

        Raises:
            UserError: the photos cannot be read.
        """
        slug = re.sub(r"[^\w.-]+", "-", str(cell).replace(" ", "--"))
        return self._folder / f"{slug}--{self._key(cell)[:12]}.json"

    def read(self, cell: Cell) -> CellResult | None:
        """The result of a cell; None where there is none, or a damaged one."""
        try:
            return CellResult.model_validate_json(self.path(cell).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            return None

    def write(self, cell: Cell, result: CellResult) -> None:
        """Keep the result of a cell.

        Raises:
            OSError: the disk is full or may not be written.
        """
        write_atomically(self.path(cell), result.model_dump_json(indent=1) + "\n")

    def _key(self, cell: Cell) -> str:
        subject = cell.subject
        spec = {key: str(value) for key, value in vars(subject.spec).items() if key != "checkpoint"}
        values: dict[str, JsonValue] = {
            "spec": dict(spec),
            "calibration": self._content(subject.calibration),
            "validation": self._content(subject.validation),
            "limit": subject.limit,
            "recipe": _recipe(cell),
            "level": cell.level,
            "seed": cell.seed,
            "code": [code_version(stage) for stage in _STAGES[cell.level]],
        }
        files = (subject.spec.checkpoint, subject.labels_file)
        return hash_inputs(values, [file for file in files if file is not None])

    def _content(self, source: PhotoSource) -> JsonValue:
        """Names and hashes of photos, once for all cells."""
        if source not in self._hashes:
            photos = (path for path in list_photos(source) if path.is_file())
            self._hashes[source] = hash_inputs(
                {name_of(path, source): content_hash(path) for path in photos}
            )
        return self._hashes[source]


def _recipe(cell: Cell) -> JsonValue:
    try:
        return load_recipe(cell.recipe_name).model_dump(mode="json")
    except UserError as error:
        return str(error)  # the cell will fail with it
