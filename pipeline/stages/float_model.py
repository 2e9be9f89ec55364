"""The float model: loaded at once, canonicalized when a stage first asks for its graph."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import fx, nn

from pipeline.canonical import canonicalize
from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import UserError
from pipeline.models import LoadedModel, ModelSpec, load_model
from pipeline.progress import Reporter, Silent

SPEC = "model.json"


class FloatModel:
    """A timm model with its weights.

    Attributes:
        spec: where it came from.
        loaded: the model.
        identity: what tells it from any other model, as plain JSON data.
    """

    def __init__(self, spec: ModelSpec, reporter: Reporter | None = None) -> None:
        """Load the model.

        Raises:
            UserError: see `load_model`.
        """
        self._reporter = reporter or Silent()
        with self._reporter.step(f"load {spec.name}"):
            self.spec = spec
            self.loaded: LoadedModel = load_model(spec)
            self.identity: dict[str, Any] = {
                "name": spec.name,
                "num_classes": self.loaded.num_classes,
                "preprocessing": self.preprocessing.to_dict(),
                "weights": weights_sha256(self.loaded.module),
            }

    @property
    def preprocessing(self) -> Preprocessing:
        """How photos are prepared for it."""
        return self.loaded.preprocessing

    @cached_property
    def graph(self) -> fx.GraphModule:
        """Its canonical graph.

        Raises:
            UserError: see `canonicalize`.
        """
        with self._reporter.step("canonicalize"):
            return canonicalize(self.loaded)


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of all tensors of a module."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_spec(spec: ModelSpec, folder: Path) -> None:
    """Write down where a model came from, so that `load_spec` finds it again."""
    checkpoint = str(spec.checkpoint.resolve()) if spec.checkpoint else None
    content = asdict(spec) | {"checkpoint": checkpoint}
    (folder / SPEC).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_spec(folder: Path) -> ModelSpec:
    """Read what `save_spec` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / SPEC
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        checkpoint = content["checkpoint"]
        fixed: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in content.items()
        }
        fixed["checkpoint"] = Path(checkpoint) if checkpoint else None
        return ModelSpec(**fixed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder} is not a quantized model ({path.name} is missing or damaged); "
            "make one with pocketvit quantize."
        ) from error
