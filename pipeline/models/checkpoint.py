"""Reading weights from a file and putting them into a module."""

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from pipeline.errors import UserError
from pipeline.models.preprocessing import parse_metadata

_SHOWN = 3


@dataclass(frozen=True)
class Checkpoint:
    """Weights and the settings stored beside them.

    Attributes:
        path: where they were read.
        tensors: name -> tensor; floating-point ones are float32.
        settings: `pocketvit.*` metadata of a safetensors file, decoded; empty for other files.
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    settings: Mapping[str, Any]

    def num_classes(self, classifiers: Iterable[str]) -> int | None:
        """Number of outputs of the first of these layers that the checkpoint has."""
        for layer in classifiers:
            weight = self.tensors.get(f"{layer}.weight")
            if weight is not None:
                return int(weight.shape[0])
        return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a `.safetensors`, `.pth`, `.pt` or `.bin` file; pickles are read without running code.

    Raises:
        UserError: the file is absent, of another kind, damaged, or holds no weights.
    """
    if not path.is_file():
        raise UserError(f"Checkpoint {path} does not exist; check the path.")
    if path.suffix == ".safetensors":
        raw, settings = _read_safetensors(path)
    elif path.suffix in (".pth", ".pt", ".bin"):
        raw, settings = _read_pickle(path), {}
    else:
        raise UserError(
            f"Checkpoint {path} has an unknown ending; use .safetensors, .pth, .pt or .bin."
        )
    prefix = "module." if all(name.startswith("module.") for name in raw) else ""
    tensors = {
        name.removeprefix(prefix): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in raw.items()
    }
    return Checkpoint(path, tensors, settings)


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"Checkpoint {path} is not a readable safetensors file ({error}); export it again."
        ) from error
    return tensors, parse_metadata(metadata, str(path))


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"Checkpoint {path} cannot be read as plain weights ({reason}); "
            "save the model's state_dict() or a safetensors file."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        content = {}
    tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise UserError(f"Checkpoint {path} holds no tensors; save the model's state_dict().")
    return tensors


def load_weights(module: nn.Module, checkpoint: Checkpoint, model_name: str) -> None:
    """Copies every tensor into the module of the same names and shapes.

    Raises:
        UserError: tensors are missing, left over, of another shape, or hold NaN or infinity.
    """
    wanted, given = module.state_dict(), checkpoint.tensors
    # Counters of training steps have no meaning for inference; old checkpoints lack them.
    missing = [k for k in wanted if k not in given and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in given if k not in wanted]
    misshaped = [
        f"{k} {list(given[k].shape)} instead of {list(wanted[k].shape)}"
        for k in wanted
        if k in given and given[k].shape != wanted[k].shape
    ]
    problems = [
        f"{len(keys)} {kind} ({_some(keys)})"
        for kind, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of the wrong shape", misshaped),
        )
        if keys
    ]
    if problems:
        raise UserError(
            f"Checkpoint {checkpoint.path} does not fit {model_name}: tensors {'; '.join(problems)}"
            "; check the model name, the number of classes and the input size."
        )
    broken = [name for name, tensor in given.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(
            f"Checkpoint {checkpoint.path} holds NaN or infinity in {len(broken)} of its tensors "
            f"({_some(broken)}); give one from before its training diverged, or export it again."
        )
    module.load_state_dict(dict(given), strict=False)


def _some(names: Sequence[str]) -> str:
    """The first few of them."""
    return ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])
