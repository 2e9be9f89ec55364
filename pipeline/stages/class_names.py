"""The names of the classes, as the artifact lists them."""

from pipeline.data.labels import imagenet_synsets
from pipeline.data.source import class_folder
from pipeline.models import torchvision_compat  # noqa: F401  (must precede timm)
from pipeline.stages.float_model import FloatModel
from pipeline.stages.photos import ValidationSet

# isort: split
from timm.data import ImageNetInfo

IMAGENET_CLASSES = 1000


def class_names(model: FloatModel, validation: ValidationSet | None = None) -> list[str]:
    """Names in the order of the logits, from the first source that has them.

    1. The checkpoint's metadata.
    2. ImageNet, when the weights are timm's or the validation folders are its synset ids.
    3. The validation folders.
    4. The class indices.
    """
    classes = model.loaded.num_classes
    if model.loaded.labels is not None:
        return list(model.loaded.labels)
    folders = _folder_names(validation) if validation else {}
    if classes == IMAGENET_CLASSES:
        synsets = folders and set(folders.values()) <= set(imagenet_synsets())
        if synsets or model.spec.pretrained:
            info = ImageNetInfo()
            return [str(info.index_to_description(index)) for index in range(classes)]
    return [folders.get(index, str(index)) for index in range(classes)]


def _folder_names(validation: ValidationSet) -> dict[int, str]:
    """Name of the folder of each class, of those whose photos are all in one folder."""
    found: dict[int, set[str]] = {}
    for photo in validation.photos:
        name = class_folder(photo.path, validation.source)
        found.setdefault(photo.label, set()).add(name)
    return {
        label: name
        for label, names in found.items()
        if len(names) == 1 and (name := next(iter(names)))
    }
