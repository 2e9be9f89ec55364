"""Saving and loading quantized models: `quantized.safetensors` and `quantized.json`, no pickle.

The files hold every tensor of the QDQ graph, the recipe and the calibration. Loading inserts the
quantizers again into the canonical graph and insists that the result is the same bit for bit.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, fx

from pipeline.errors import UserError
from pipeline.quant.calibration import Calibration
from pipeline.quant.insert import quantize_graph
from pipeline.quant.quantized import QuantizedModel
from pipeline.quant.recipe import Recipe, parse_recipe

VERSION = 1
TENSORS = "quantized.safetensors"
DESCRIPTION = "quantized.json"


def save_quantized(quantized: QuantizedModel, directory: Path) -> None:
    """Write both files into `directory`, which is created where it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.contiguous() for name, t in quantized.graph.named_buffers()}
    # Tensors that share memory are refused by the format; nothing here needs to share. Written by
    # us, because safetensors reports a full disk as an error of its own.
    content = save({name: t.clone() for name, t in tensors.items()})
    (directory / TENSORS).write_bytes(content)
    description = {
        "version": VERSION,
        "model": dict(quantized.model),
        "recipe": quantized.recipe.model_dump(),
        "calibration": quantized.calibration.to_json(),
        "sha256": fingerprint(quantized.graph),
    }
    text = json.dumps(description, indent=1, sort_keys=True)
    (directory / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def load_quantized(directory: Path, graph: fx.GraphModule) -> QuantizedModel:
    """Read what `save_quantized` wrote.

    Args:
        directory: where the two files are.
        graph: the canonical graph of the float model that was quantized (`read_model_identity`
            tells which).

    Raises:
        UserError: files are missing or damaged, or belong to another float model.
    """
    description = _read_description(directory)
    try:
        stored = load_file(directory / TENSORS)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"Cannot read {directory / TENSORS} ({error}); quantize the model again."
        ) from None
    where = str(directory / DESCRIPTION)
    recipe = parse_recipe(description["recipe"], where)
    calibration = Calibration.from_json(description["calibration"])
    try:
        made = quantize_graph(graph, calibration, recipe)
    except KeyError as error:
        raise UserError(
            f"{where} has no calibration of tensor {error}: it was made from another model; "
            "quantize this one again."
        ) from None
    if (name := _first_difference(dict(made.named_buffers()), stored)) is not None:
        raise UserError(
            f"{directory / TENSORS} does not fit the float model: tensor '{name}' differs; "
            "quantize the model again."
        )
    if fingerprint(made) != description["sha256"]:
        raise UserError(
            f"{where} describes another graph than the float model gives; quantize the model again."
        )
    return QuantizedModel(made, recipe, calibration, description["model"])


def read_model_identity(directory: Path) -> dict[str, Any]:
    """What identifies the float model of a saved quantized model.

    Raises:
        UserError: the description is missing or damaged.
    """
    identity: dict[str, Any] = _read_description(directory)["model"]
    return identity


def read_recipe(directory: Path) -> Recipe:
    """The recipe of a saved quantized model.

    Raises:
        UserError: the description is missing or damaged.
    """
    return parse_recipe(_read_description(directory)["recipe"], str(directory / DESCRIPTION))


def fingerprint(graph: fx.GraphModule) -> str:
    """SHA-256 over the operators of a graph and the bytes of all its tensors."""
    digest = hashlib.sha256()
    for node in graph.graph.nodes:
        digest.update(f"{node.op} {node.name} {node.target} {node.args} {node.kwargs}\n".encode())
    for name, tensor in sorted(graph.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read_description(directory: Path) -> dict[str, Any]:
    path = directory / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is missing or not a quantized model; quantize the model first."
        ) from None
    if version != VERSION:
        raise UserError(
            f"{path} has version {version} but this program reads {VERSION}; "
            "quantize the model again."
        )
    complete: dict[str, Any] = description
    return complete


def _first_difference(made: dict[str, Tensor], stored: dict[str, Tensor]) -> str | None:
    for name in sorted(made.keys() | stored.keys()):
        if name not in made or name not in stored:
            return name
        ours, theirs = made[name], stored[name]
        if ours.dtype != theirs.dtype or not torch.equal(ours, theirs):
            return name
    return None
