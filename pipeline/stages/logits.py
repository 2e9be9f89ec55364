"""Logits of the validation photos, whatever network computes them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from pipeline.stages.photos import ValidationSet
from pipeline.stages.workspace import Workspace

CHUNK = 256  # photos per cached result: what an interruption can cost
BATCH = 16

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[Any]
Network = Callable[[Pixels], Logits]
"""uint8 `[N, H, W, 3]` to `[N, classes]`."""


def cached_logits(
    workspace: Workspace,
    stage: str,
    inputs: JsonValue,
    photos: ValidationSet,
    make_network: Callable[[], Network],
) -> Logits:
    """Logits `[photos, classes]` by chunks, each cached, so that an interruption costs little.

    Args:
        workspace: caches the chunks.
        stage: name of the stage.
        inputs: what tells the network from any other.
        photos: what it is run on.
        make_network: called at most once, and only when a chunk is missing.
    """
    network = cache(make_network)
    parts: list[Logits] = []
    anything_new = False
    with workspace.reporter.step(f"evaluate {stage}", len(photos.photos)) as step:
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
            folder, made = workspace.cached(stage, key, produce)
            anything_new |= made
            step.advance(stop)
            parts.append(np.load(folder / "logits.npy"))
        if not anything_new:
            step.reuse()
    return np.concatenate(parts)
