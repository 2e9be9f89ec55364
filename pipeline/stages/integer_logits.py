"""Logits of the library that runs on this host."""

from pathlib import Path

import numpy as np

from pipeline.device import HostDevice
from pipeline.files.hashing import sha256_file
from pipeline.stages.logits import Logits, Network, cached_logits
from pipeline.stages.photos import ValidationSet
from pipeline.stages.workspace import Workspace


def integer_logits(
    workspace: Workspace, library: Path, classes: int, photos: ValidationSet
) -> Logits:
    """Logits of a library on this host, int32 `[photos, classes]`."""

    def network() -> Network:
        program = HostDevice().load(library, classes)
        return lambda pixels: np.concatenate([program.run(image[None]) for image in pixels])

    return cached_logits(workspace, "integer", {"library": sha256_file(library)}, photos, network)
