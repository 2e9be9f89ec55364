"""Work that survives a killed run: pieces of a quantization, each stored whole or not at all."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, fx

from pipeline.quant.fingerprint import fingerprint
from pipeline.quant.recipe import Recipe

VERSION = 3


@dataclass(frozen=True)
class Piece:
    """The result of one part of the work.

    Attributes:
        tensors: by name.
        data: plain JSON data.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


class Work(Protocol):
    """Remembers pieces."""

    def remembered(self, name: str) -> Piece | None:
        """A piece of an earlier run, if there is one."""
        ...

    def remember(self, name: str, piece: Piece) -> None:
        """Take the result of a part."""
        ...


class NoWork:
    """Remembers nothing."""

    def remembered(self, name: str) -> Piece | None:
        """See `Work`."""
        return None

    def remember(self, name: str, piece: Piece) -> None:
        """See `Work`."""


@dataclass(frozen=True)
class WorkFolder:
    """Pieces as files; any of them may be deleted at any time.

    Attributes:
        folder: of the files; made where it is missing.
    """

    folder: Path

    def remembered(self, name: str) -> Piece | None:
        """See `Work`; a damaged file is no piece."""
        try:
            with safe_open(self._path(name), "pt") as file:
                data = json.loads(file.metadata()["data"])
                return Piece({key: file.get_tensor(key) for key in file.keys()}, data)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def remember(self, name: str, piece: Piece) -> None:
        """See `Work`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {key: value.detach().cpu().clone() for key, value in piece.tensors.items()}
        content = save(tensors, {"data": json.dumps(dict(piece.data))})
        path = self._path(name)
        # Under another name until it is whole: a process may be killed while it writes.
        written = path.with_name(f".{path.name}.{os.getpid()}")
        written.write_bytes(content)
        written.replace(path)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def work_of(
    folder: Path | None,
    graph: fx.GraphModule,
    recipe: Recipe,
    photos: Sequence[np.ndarray[Any, Any]],
) -> Work:
    """Where pieces of a quantization are kept.

    Args:
        folder: of the work of all models; nothing is remembered without one.
        graph: canonical float graph.
        recipe: bits, formats and methods, seeds included.
        photos: uint8 `[H, W, 3]`.
    """
    if folder is None:
        return NoWork()
    digest = hashlib.sha256(f"{VERSION} {torch.__version__} {fingerprint(graph)}\n".encode())
    digest.update(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode())
    for photo in photos:
        digest.update(f"{photo.dtype} {photo.shape}\n".encode())
        digest.update(np.ascontiguousarray(photo).tobytes())
    return WorkFolder(folder / digest.hexdigest()[:20])
