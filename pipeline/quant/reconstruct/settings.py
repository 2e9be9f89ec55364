"""Settings of the reconstruction, as recipes give them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Preset = Literal["paper", "quick"]

PRESETS: dict[str, dict[str, Any]] = {
    # The defaults below.
    "paper": {},
    # For one or two cores of a CPU: larger steps, and a budget of minutes per unit.
    "quick": {
        "images": 512,
        "iterations": 500,
        "batch": 8,
        "rounding_rate": 1e-2,
        "scale_rate": 1e-3,
        "importance_images": 32,
    },
}


class Reconstruct(BaseModel):
    """How units are trained; the defaults are those of APHQ-ViT (CVPR 2025), section 4.1.

    Attributes:
        preset: what the values are that are not given, a name of `PRESETS`.
        images: photos; as many as there are when fewer are given.
        iterations: steps per unit.
        batch: photos per step.
        rounding_rate: learning rate of the rounding.
        scale_rate: learning rate of the logarithms of the activations' scales.
        drop: probability with which a value stays float, in the unit and at its inputs (QDrop).
        inputs: what a unit reads: what the float network or the quantized one computes.
        importance: weight of every output's error: none, or the average perturbation Hessian.
        importance_images: photos over which that is averaged; at most `images`.
        regularizer: weight of the term that drives the rounding to 0 or 1.
        warmup: share of the iterations without that term.
        seed: of batches and drops.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    preset: Preset = "paper"
    images: int = Field(default=1024, ge=1)
    iterations: int = Field(default=20_000, ge=1)
    batch: int = Field(default=32, ge=1)
    rounding_rate: float = Field(default=1e-3, gt=0)
    scale_rate: float = Field(default=4e-5, ge=0)
    drop: float = Field(default=0.5, ge=0, lt=1)
    inputs: Literal["float", "quantized"] = "quantized"
    importance: Literal["none", "aph"] = "aph"
    importance_images: int = Field(default=1024, ge=1)
    regularizer: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.2, ge=0, lt=1)
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, content: Any) -> Any:
        return complete(content, PRESETS)


def complete(content: Any, presets: dict[str, dict[str, Any]]) -> Any:
    """Values as given, and those of the preset that they name for the others."""
    if not isinstance(content, dict):
        return content
    # An unknown name is left to the check of the field.
    return presets.get(str(content.get("preset")), {}) | content
