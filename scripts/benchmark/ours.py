"""Our library of a network, made by the same stages as `pocketvit deploy`."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.artifact import BuiltLibrary
from pipeline.data.photos import Photo
from pipeline.device import HostDevice
from pipeline.device.session import Program
from pipeline.errors import UserError
from pipeline.models import ModelSpec
from pipeline.quant.recipe import load_recipe
from pipeline.stages.build import build_stage
from pipeline.stages.float_model import FloatModel
from pipeline.stages.lower import lower_stage
from pipeline.stages.quantize import quantize_stage
from pipeline.stages.workspace import Workspace
from scripts.benchmark.networks import CONV_NET, SEED
from scripts.benchmark.source import Source
from tvm_passes.aot import resolve_target

CLASSES = 1000  # of timm's models


@dataclass(frozen=True)
class Ours:
    """A library and the integer module that it was made from."""

    library: BuiltLibrary
    module: Path


def build(source: Source, variant: str, target: str) -> Ours:
    """The library of a network.

    Args:
        source: the network and its calibration images.
        variant: the word "int8" and a recipe.
        target: key of `TARGETS`, or "host".

    Raises:
        UserError: the network cannot be quantized or imported.
        LoweringError: it cannot be compiled.
    """
    if source.facts["name"] == CONV_NET:
        raise UserError(f"{CONV_NET} is no image classifier; our kernels of it run in arm only.")
    workspace = Workspace(source.folder.parent / "stages")
    recipe = load_recipe(variant.removeprefix("int8 "))
    name = source.facts["name"]
    model = FloatModel(ModelSpec(name, random_seed=SEED))
    quantized = quantize_stage(workspace, model, recipe, _photos(source))
    module = lower_stage(workspace, model, quantized)
    return Ours(build_stage(workspace, name, module, resolve_target(target)), module)


def open_library(library: Path, threads: int) -> Program:
    """Load a library of this machine."""
    return HostDevice(threads).load(library, CLASSES)


def _photos(source: Source) -> list[Photo]:
    return [
        Photo(source.folder, hashlib.sha256(pixels.tobytes()).hexdigest(), np.asarray(pixels))
        for pixels in source.pixels()
    ]
