"""Which class does each photo of a validation folder belong to?"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pipeline.data.labels_file import read_labels_file
from pipeline.data.photos import list_photos
from pipeline.data.source import PhotoSource, class_folder, name_of
from pipeline.errors import UserError


@dataclass(frozen=True)
class LabelledPath:
    """A photo file and its class index."""

    path: Path
    label: int


@dataclass(frozen=True)
class Labelling:
    """Labelled photos and the rule that labelled them.

    Attributes:
        source: the validation folder, or the list of the photos.
        files: its labelled photos, sorted by relative path.
        rule: one sentence to print, so that the user sees which rule was taken.
    """

    source: PhotoSource
    files: tuple[LabelledPath, ...]
    rule: str


def label_photos(source: PhotoSource, classes: int, labels_file: Path | None = None) -> Labelling:
    """Label the photos of a folder or a list; the first rule that applies wins.

    1. A labels file, see `pipeline.data.labels_file`.
    2. All class folders have numeric names: the number is the class index.
    3. All class folders are ImageNet synset ids and the model has the 1,000 ImageNet classes.
    4. There are as many class folders as classes: the rank of the name, in alphabetical order.

    A class folder is a direct subfolder with a photo somewhere below it; of a list, any folder
    that a photo lies in.

    Args:
        source: the validation folder, or a list of photos.
        classes: number of classes of the model.
        labels_file: the user's own labels.

    Raises:
        UserError: no rule applies, a label is outside [0, classes), the labels file names a photo
            that is not there, or there is no photo.
    """
    photos = {name_of(path, source): path for path in list_photos(source)}
    tops = {name: top for name, path in photos.items() if (top := class_folder(path, source))}
    if labels_file is not None:
        labels, rule = _from_file(source, photos, tops, labels_file)
    else:
        indices, rule = _from_folder_names(source, sorted(set(tops.values())), classes)
        labels = {name: indices[top] for name, top in tops.items()}
    for name, label in labels.items():
        if not 0 <= label < classes:
            raise UserError(
                f"The label of {photos[name]} is {label}, but the model has {classes} classes "
                f"(0 to {classes - 1}); correct the {'labels file' if labels_file else 'folder'}."
            )
    files = tuple(LabelledPath(photos[name], labels[name]) for name in photos if name in labels)
    return Labelling(source, files, f"{rule}; {len(files)} of {len(photos)} photos are labelled.")


def _from_file(
    source: PhotoSource, photos: Collection[str], tops: Mapping[str, str], labels_file: Path
) -> tuple[dict[str, int], str]:
    listed = read_labels_file(labels_file)
    if listed.names:
        indices = {name: index for index, name in enumerate(listed.names)}
        if not tops or (unknown := sorted(set(tops.values()) - indices.keys())):
            what = f"class folder {unknown[0]!r}" if tops else "no class folder"
            raise UserError(
                f"{source} has {what}, which the class list {labels_file} does not explain; put "
                "each photo in a folder that is named like its class."
            )
        labels = {name: indices[top] for name, top in tops.items()}
        return labels, f"Labels are the positions of the folder names in {labels_file}"
    labels = {name: label for name, label in listed.paths.items() if name in photos}
    if not labels:
        raise UserError(
            f"None of the photos that {labels_file} lists is in {source}, such as "
            f"{next(iter(listed.paths))!r}; give paths relative to that folder."
        )
    absent = len(listed.paths) - len(labels)
    return labels, f"Labels are listed in {labels_file}, {absent} of its photos are absent"


def _from_folder_names(
    source: PhotoSource, names: list[str], classes: int
) -> tuple[dict[str, int], str]:
    for rule in (_numeric, _synsets, _ranks):
        if names and (found := rule(names, classes)):
            return found
    raise UserError(
        f"The photos of {source} cannot be labelled: its {len(names)} class folders are neither "
        f"class indices nor ImageNet synsets of a model with 1,000 classes, nor as many as the "
        f"model's {classes} classes; rename them or give a labels file."
    )


def _numeric(names: list[str], classes: int) -> tuple[dict[str, int], str] | None:
    if not all(re.fullmatch("[0-9]+", name) for name in names):
        return None
    return {name: int(name) for name in names}, "Labels are the numeric folder names"


def _synsets(names: list[str], classes: int) -> tuple[dict[str, int], str] | None:
    if classes != 1000:
        return None
    synsets = {name: index for index, name in enumerate(imagenet_synsets())}
    if not synsets.keys() >= set(names):
        return None
    indices = {name: synsets[name] for name in names}
    return indices, "Labels are the ImageNet class indices of the synset ids that name the folders"


def _ranks(names: list[str], classes: int) -> tuple[dict[str, int], str] | None:
    if len(names) != classes:
        return None
    return (
        {name: rank for rank, name in enumerate(names)},
        f"Labels are the alphabetical ranks of the {classes} folder names",
    )


def imagenet_synsets() -> list[str]:
    """Return the 1,000 ImageNet synset ids in the order of the class indices.

    They are read from timm's files without importing timm, which takes seconds.

    Raises:
        UserError: timm is not installed, or keeps its list somewhere else.
    """
    timm = find_spec("timm")
    roots = timm.submodule_search_locations if timm else None
    path = Path(next(iter(roots or ()), ""), "data", "_info", "imagenet_synsets.txt")
    if not path.is_file():
        raise UserError("timm's list of ImageNet classes is not there; reinstall pocketvit.")
    return path.read_text(encoding="utf-8").split()
