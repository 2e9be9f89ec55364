"""The labels file of the user: labels per photo, or a list of classes.

Labels per photo, paths relative to the validation folder and classes counted from 0:

* text, one photo per line, `cats/tom 1.jpg 281` (path, blank, index);
* CSV (`.csv`), two columns `path,index`, a heading line is allowed;
* JSON (`.json`), `{"cats/tom 1.jpg": 281}`.

Class list, where the position of a folder's name is the class index of the photos in it:

* text or CSV, one folder name per line;
* JSON, `["cats", "dogs"]`.

Blank lines and, in text, lines that begin with # are ignored. Files are UTF-8.
"""

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.data.photos import SUFFIXES
from pipeline.errors import UserError


@dataclass(frozen=True)
class LabelsFile:
    """What a labels file says; one of the two fields is empty.

    Attributes:
        paths: class index by relative path, as written with forward slashes.
        names: folder names in the order of the classes.
    """

    paths: Mapping[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()


def read_labels_file(path: Path) -> LabelsFile:
    """Read a labels file in any form that this module's docstring lists.

    Raises:
        UserError: the file is missing, empty, not UTF-8, mixes the two forms, or labels a photo
            or lists a class twice.
    """
    if not path.is_file():
        raise UserError(f"The labels file {path} does not exist; name an existing file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _READERS.get(path.suffix.lower(), _text_rows)(text)
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise UserError(f"The labels file {path} cannot be read ({error}); repair it.") from error
    wrong = next((row for row in rows if len(row) != len(rows[0]) or not _is_valid(row)), None)
    if wrong is not None or not rows:
        what = "is empty" if wrong is None else f"is not understood at {' '.join(wrong)!r}"
        raise UserError(
            f"The labels file {path} {what}; write one 'path index' or one class name per line."
        )
    keys = [row[0] for row in rows]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"The labels file {path} lists {twice!r} twice; remove one of them.")
    if len(rows[0]) == 1:
        return LabelsFile(names=tuple(keys))
    return LabelsFile(paths={_relative(name): int(label) for name, label in rows})


def _text_rows(text: str) -> list[list[str]]:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    # A class name may end in a number too ("room 1"), the name of a photo ends in its suffix.
    return [row if _is_label(row := line.rsplit(maxsplit=1)) else [line] for line in lines]


def _csv_rows(text: str) -> list[list[str]]:
    cells = ([cell.strip() for cell in row] for row in csv.reader(text.splitlines(), strict=True))
    rows = [row for row in cells if any(row)]
    has_heading = bool(rows) and len(rows[0]) == 2 and not _is_label(rows[0])
    return rows[1:] if has_heading else rows


def _json_rows(text: str) -> list[list[str]]:
    value = json.loads(text)
    if isinstance(value, dict):
        return [[name, str(label)] for name, label in value.items()]
    if isinstance(value, list):
        return [[str(name)] for name in value]
    return []


_READERS = {".csv": _csv_rows, ".json": _json_rows}


def _is_label(row: list[str]) -> bool:
    return (
        len(row) == 2
        and PurePosixPath(row[0]).suffix.lower() in SUFFIXES
        and re.fullmatch("[0-9]+", row[1]) is not None
    )


def _is_valid(row: list[str]) -> bool:
    return _is_label(row) or len(row) == 1


def _relative(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).as_posix()
