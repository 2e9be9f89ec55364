"""What a study of sensitivity finds out, as data."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.sensitivity.effects import Effect, Effects
from pipeline.sensitivity.layers import Layer
from pipeline.sensitivity.ranges import TensorRange


@dataclass(frozen=True)
class LayerFigures:
    """One layer.

    Attributes:
        layer: which.
        local_sqnr_db: of its output in the quantized network against float.
        effects: on the logits.
    """

    layer: Layer
    local_sqnr_db: float
    effects: Effects


@dataclass(frozen=True)
class SensitivityResult:
    """All that `sensitivity` finds out.

    Attributes:
        model: timm's name.
        recipe: its name.
        photos: how many were run.
        float_top1: share of them that the float model gets right.
        quantized: the network with all layers quantized.
        layers: in the order of the network.
        ranges: of all stored tensors, likewise.
        files: data and pictures.
    """

    model: str
    recipe: str
    photos: int
    float_top1: float
    quantized: Effect
    layers: tuple[LayerFigures, ...]
    ranges: tuple[TensorRange, ...]
    files: tuple[Path, ...] = ()
