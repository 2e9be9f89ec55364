"""Logits of the validation photos: of the float model, the simulation and the host's library."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import JsonValue

from pipeline.artifact.hashing import sha256_file
from pipeline.device import HostDevice
from pipeline.quant.simulate import simulate
from pipeline.quant.storage import DESCRIPTION
from pipeline.stages.float_model import FloatModel
from pipeline.stages.lower import read_module
from pipeline.stages.photos import ValidationSet
from pipeline.stages.quantize import open_quantized
from pipeline.stages.workspace import Workspace
from tvm_passes.interpret import interpret

CHUNK = 256  # photos per cached result: what an interruption can cost
BATCH = 16

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[Any]
Network = Callable[[Pixels], Logits]
"""uint8 `[N, H, W, 3]` to `[N, classes]`."""


def float_logits(workspace: Workspace, model: FloatModel, photos: ValidationSet) -> Logits:
    """Logits of the timm model itself, float32 `[photos, classes]`."""
    settings = model.preprocessing
    mean, std = (torch.tensor(value) for value in (settings.mean, settings.std))

    def run(pixels: Pixels) -> Logits:
        with torch.inference_mode():
            images = (torch.from_numpy(pixels) / 255 - mean) / std
            return np.asarray(model.loaded.module(images.permute(0, 3, 1, 2)).numpy())

    return _logits(workspace, "float", {"model": model.identity}, photos, lambda: run)


def simulated_logits(
    workspace: Workspace, model: FloatModel, quantized: Path, photos: ValidationSet
) -> Logits:
    """Logits of the quantized graph run in torch, float32 `[photos, classes]`."""

    def network() -> Network:
        graph = open_quantized(quantized, model).graph
        return lambda pixels: simulate(graph, pixels)

    inputs: JsonValue = {"quantized": sha256_file(quantized / DESCRIPTION)}
    return _logits(workspace, "simulated", inputs, photos, network)


def integer_logits(
    workspace: Workspace, library: Path, classes: int, photos: ValidationSet
) -> Logits:
    """Logits of a library on this host, int32 `[photos, classes]`."""

    def network() -> Network:
        program = HostDevice().load(library, classes)
        return lambda pixels: np.concatenate([program.run(image[None]) for image in pixels])

    return _logits(workspace, "integer", {"library": sha256_file(library)}, photos, network)


def reference_logits(
    workspace: Workspace, module: Path, photos: ValidationSet, indices: npt.NDArray[np.int64]
) -> Logits:
    """Logits of some photos by the NumPy reference of every operator, int32 `[n, classes]`."""
    with workspace.reporter.step("NumPy reference", len(indices)) as step:
        integer = read_module(module)
        rows = []
        for done, image in enumerate(photos.images(indices), start=1):
            rows.append(interpret(integer, image))
            step.advance(done)
    return np.concatenate(rows)


def _logits(
    workspace: Workspace,
    name: str,
    inputs: JsonValue,
    photos: ValidationSet,
    make_network: Callable[[], Network],
) -> Logits:
    """Logits by chunks of photos, each cached, so that an interruption costs little."""
    network = cache(make_network)  # made at most once, and only when a chunk is missing
    parts: list[Logits] = []
    anything_new = False
    with workspace.reporter.step(f"evaluate {name}", len(photos.photos)) as step:
        for start in range(0, len(photos.photos), CHUNK):
            stop = min(start + CHUNK, len(photos.photos))

            def produce(folder: Path, start: int = start, stop: int = stop) -> None:
                rows = []
                for first in range(start, stop, BATCH):
                    last = min(first + BATCH, stop)
                    rows.append(network()(photos.pixels(first, last)))
                    step.advance(last)
                np.save(folder / "logits.npy", np.concatenate(rows))

            key: dict[str, JsonValue] = {
                "network": inputs,
                "preprocessing": photos.preprocessing.to_dict(),
                "photos": [photo.sha256 for photo in photos.photos[start:stop]],
            }
            folder, made = workspace.cached(name, key, produce)
            anything_new |= made
            step.advance(stop)
            parts.append(np.load(folder / "logits.npy"))
        if not anything_new:
            step.reuse()
    return np.concatenate(parts)
