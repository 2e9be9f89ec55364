"""The manifest of an artifact, and its JSON form."""

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from tvm_passes.graph.data_movement import Movement

MANIFEST = "manifest.json"
LABELS = "labels.txt"
HEADER = "include/pocketvit.h"


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path:
        raise ValueError(f"{path!r} is not a path inside the artifact")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelInfo(_Part):
    """The network and how it was quantized.

    Attributes:
        name: of the model; part of the library's file name.
        recipe: name of the quantization recipe.
        input_size: side of the square input image, in pixels.
        num_classes: length of the logits.
        logits_scale: real logit per integer logit.
        preprocessing: how a photo becomes an input, as the preprocessing writes itself.
        quantization: summary of formats per role, for people and reports.
        movement: operators that only move data, or None where they were not counted.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    recipe: str
    input_size: Annotated[int, Field(gt=0)]
    num_classes: Annotated[int, Field(gt=0)]
    logits_scale: Annotated[float, Field(gt=0)]
    preprocessing: dict[str, JsonValue]
    quantization: JsonValue = None
    movement: Movement | None = None


class LibraryEntry(_Part):
    """One library of the artifact; sizes in bytes.

    Attributes:
        file: path inside the artifact.
        isa: instruction set that its kernels use.
        arena_bytes: working memory of one handle.
        parameter_bytes: constants inside the library.
        weight_bytes: weights of products among them.
        weight_bytes_by_bits: the same by the width that they are stored in.
        code_bytes: machine code.
        file_bytes: size of the file.
        layers: names in the order of a profile.
    """

    file: RelativePath
    isa: str
    arena_bytes: int
    parameter_bytes: int
    weight_bytes: int = 0
    weight_bytes_by_bits: dict[int, int] = {}
    code_bytes: int
    file_bytes: int
    layers: tuple[str, ...]


class Manifest(_Part):
    """Everything that is known of an artifact.

    Attributes:
        format_version: of this file.
        abi_version: ``POCKETVIT_ABI_VERSION`` of the header and the libraries.
        model: the network.
        labels: path of the class names.
        header: path of the C header.
        libraries: by target name.
        tools: versions of the packages that made it.
        files: SHA-256 of every file but the manifest, by path.
    """

    format_version: Literal[1] = 1
    abi_version: int
    model: ModelInfo
    labels: RelativePath = LABELS
    header: RelativePath = HEADER
    libraries: dict[str, LibraryEntry]
    tools: dict[str, str]
    files: dict[RelativePath, Sha256]
