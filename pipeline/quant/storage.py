"""Saving and loading quantized models: `quantized.safetensors` and `quantized.json`, no pickle.

The files hold every tensor of the QDQ graph, the recipe and all quantizers. Loading inserts the
quantizers again into the canonical graph and insists that the result is the same bit for bit.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, fx

from pipeline.errors import UserError
from pipeline.quant import walk
from pipeline.quant.fingerprint import fingerprint
from pipeline.quant.insert import quantize_graph
from pipeline.quant.mlp.rewrite import rectify
from pipeline.quant.plan import make_plan
from pipeline.quant.quantization import Quantization
from pipeline.quant.quantized import QuantizedModel
from pipeline.quant.quantizers import from_json, to_json
from pipeline.quant.recipe import Recipe, parse_recipe
from pipeline.quant.reparam.equalize import Equalization, equalize
from pipeline.quant.reparam.power_of_two import scale_stream
from pipeline.quant.weights import QuantizedWeight

VERSION = 4
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
    found = quantized.quantization
    description = {
        "version": VERSION,
        "model": dict(quantized.model),
        "recipe": quantized.recipe.model_dump(),
        "activations": {name: to_json(value) for name, value in found.activations.items()},
        "bits": dict(found.bits),
        "rectified": list(found.rectified),
        "equalizations": [asdict(one) for one in found.equalizations],
        "exponents": dict(found.exponents),
        "images": found.images,
        "source": quantized.source,
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
    if fingerprint(graph) != description["source"]:
        raise UserError(f"{where} was made from another model; quantize this one again.")
    try:
        found = _quantization(description, stored, graph)
        prepared = equalize(rectify(graph, found.rectified), found.equalizations)
        prepared = scale_stream(prepared, found.exponents)
        made = quantize_graph(prepared, make_plan(prepared.graph, recipe, found.bits), found)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{where} is damaged: it says nothing of {error}; quantize the model again."
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
    return QuantizedModel(made, recipe, found, description["model"], description["source"])


def _quantization(
    description: Mapping[str, Any], stored: Mapping[str, Tensor], graph: fx.GraphModule
) -> Quantization:
    products = [node.name for node in graph.graph.nodes if node.target in walk.WEIGHTED]
    weights = {
        name: QuantizedWeight(stored[f"{name}_weight_codes"], stored[f"{name}_weight_scale"])
        for name in products
    }
    biases = {name: stored[f"{name}_bias"] for name in products if f"{name}_bias" in stored}
    activations = {name: from_json(value) for name, value in description["activations"].items()}
    equalizations = tuple(
        Equalization(one["tensor"], tuple(one["factor"]), tuple(one["shift"]), one["stream"])
        for one in description["equalizations"]
    )
    exponents = {name: tuple(found) for name, found in description["exponents"].items()}
    return Quantization(
        activations,
        weights,
        biases,
        description["bits"],
        equalizations,
        description["images"],
        tuple(description["rectified"]),
        exponents,
    )


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
