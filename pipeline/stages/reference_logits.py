"""Logits of the exact NumPy reference, for a few photos; they are not cached."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.stages.integer_module import read_module
from pipeline.stages.logits import Logits
from pipeline.stages.photos import ValidationSet
from pipeline.stages.workspace import Workspace
from tvm_passes.interpret import interpret


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
