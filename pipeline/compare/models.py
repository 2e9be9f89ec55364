"""Which models are compared: names, names with checkpoints, and lists in files.

A list is TOML, one `[[model]]` table each, or CSV with a heading; the keys are the fields of
`ModelEntry`. Paths in a list are relative to its folder.
"""

import csv
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from pipeline.compare.cell import Subject
from pipeline.data.source import photo_source
from pipeline.errors import UserError
from pipeline.models import ModelSpec

LISTS = (".toml", ".csv")
_PATHS = ("checkpoint", "calibration", "validation", "photos_root", "labels")
_WEIGHTS = ("checkpoint", "pretrained", "random_weights")


def _numbers(value: Any) -> Any:
    return value.split() if isinstance(value, str) else value  # a cell of CSV


Colours = Annotated[tuple[float, float, float], BeforeValidator(_numbers)]


class ModelEntry(BaseModel):
    """A model with all that may differ from one to the next; the options of the same names.

    Attributes:
        name: timm's name of the model.
        title: what tables call it; None for the name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str | None = None
    checkpoint: Path | None = None
    pretrained: bool = False
    random_weights: int | None = None
    num_classes: int | None = None
    input_size: int | None = None
    mean: Colours | None = None
    std: Colours | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    resize: str | None = None
    calibration: Path | None = None
    validation: Path | None = None
    photos_root: Path | None = None
    labels: Path | None = None
    limit: int | None = None


def parse_models(arguments: Sequence[str], common: dict[str, Any]) -> list[ModelEntry]:
    """The models that arguments name.

    Args:
        arguments: each `name`, `name=checkpoint`, or a file that ends in .toml or .csv.
        common: fields of `ModelEntry` that hold for all models that do not say otherwise.

    Raises:
        UserError: a list cannot be read, has an unknown key or a value of another kind.
    """
    entries = []
    for argument in arguments:
        name, _, checkpoint = argument.partition("=")
        if checkpoint:
            own: dict[str, Any] = {"name": name, "checkpoint": checkpoint}
            entries.append(_entry(own, common, argument))
        elif argument.endswith(LISTS):
            file = Path(argument)
            entries += [_entry(_placed(row, file), common, argument) for row in _rows(file)]
        else:
            entries.append(_entry({"name": argument}, common, argument))
    return entries


def subjects(entries: Iterable[ModelEntry]) -> list[Subject]:
    """The models with their photos, every path absolute; each with a title of its own.

    Raises:
        UserError: photos are missing, or two models have the same title.
    """
    found: dict[str, Subject] = {}
    for entry in entries:
        title = entry.title or entry.name
        if title in found:
            raise UserError(
                f"Two of the models are called {title}; give them titles in a model list."
            )
        found[title] = _subject(title, entry)
    return list(found.values())


def _subject(title: str, entry: ModelEntry) -> Subject:
    for what in ("calibration", "validation"):
        if (path := getattr(entry, what)) is None:
            raise UserError(f"{title} has no {what} photos; give --{what} or name them in a list.")
        if not path.exists():
            raise UserError(f"The {what} photos {path} of {title} do not exist; correct the path.")
    assert entry.calibration is not None and entry.validation is not None
    root = _absolute(entry.photos_root)
    spec = ModelSpec(
        name=entry.name,
        checkpoint=_absolute(entry.checkpoint),
        pretrained=entry.pretrained,
        random_seed=entry.random_weights,
        num_classes=entry.num_classes,
        input_size=entry.input_size,
        mean=entry.mean,
        std=entry.std,
        interpolation=entry.interpolation,
        crop_pct=entry.crop_pct,
        resize=entry.resize,
    )
    if spec.checkpoint is not None and not spec.checkpoint.is_file():
        raise UserError(f"Checkpoint {spec.checkpoint} of {title} does not exist; check the path.")
    return Subject(
        title,
        spec,
        photo_source(entry.calibration.absolute(), root),
        photo_source(entry.validation.absolute(), root),
        _absolute(entry.labels),
        entry.limit,
    )


def _absolute(path: Path | None) -> Path | None:
    return path.absolute() if path is not None else None


def _entry(own: dict[str, Any], common: dict[str, Any], where: str) -> ModelEntry:
    """An entry; one that names its own weights does not take the common ones."""
    ours = own.keys() & set(_WEIGHTS)
    shared = {key: value for key, value in common.items() if not (ours and key in _WEIGHTS)}
    try:
        return ModelEntry.model_validate(shared | own)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise UserError(
                f"Model list {where} has an unknown key '{key}'; "
                f"allowed are {', '.join(ModelEntry.model_fields)}."
            ) from None
        raise UserError(
            f"Model list {where}: {key} = {first['input']!r} is not allowed; "
            f"{first['msg'][0].lower()}{first['msg'][1:]}."
        ) from None


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix == ".csv":
            table = csv.DictReader(text.splitlines(), strict=True, restkey="surplus")
            rows: Any = [{key: cell for key, cell in row.items() if cell} for row in table]
        else:
            rows = tomllib.loads(text).get("model")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, csv.Error) as error:
        raise UserError(f"The model list {file} cannot be read ({error}); correct it.") from None
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"The model list {file} has no model; write one [[model]] table for each.")
    return list(rows)


def _placed(row: dict[str, Any], file: Path) -> dict[str, Any]:
    """A row whose paths begin where its file is."""
    return {
        key: file.absolute().parent / value if key in _PATHS and isinstance(value, str) else value
        for key, value in row.items()
    }
