"""Settings of the MLP reconstruction, as recipes give them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.quant.reconstruct.settings import Preset, complete

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "quick": {
        "images": 512,
        "iterations": 300,
        "batch": 8,
        "rate": 1e-3,
        "importance_images": 32,
    },
}


class MlpReconstruct(BaseModel):
    """How MLPs are trained to do with ReLU; the defaults are those of APHQ-ViT (CVPR 2025).

    Attributes:
        preset: what the values are that are not given, a name of `PRESETS`.
        images: photos; as many as there are when fewer are given.
        iterations: steps per MLP.
        batch: photos per step.
        rate: learning rate of weights and biases.
        clamp: share of the positive values behind the activation that stay below the clamp.
        importance: weight of every output's error: none, or the average perturbation Hessian.
        importance_images: photos over which that is averaged; at most `images`.
        seed: of batches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    preset: Preset = "paper"
    images: int = Field(default=1024, ge=1)
    iterations: int = Field(default=20_000, ge=1)
    batch: int = Field(default=32, ge=1)
    rate: float = Field(default=4e-5, gt=0)
    clamp: float = Field(default=0.99, gt=0, le=1)
    importance: Literal["none", "aph"] = "aph"
    importance_images: int = Field(default=1024, ge=1)
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, content: Any) -> Any:
        return complete(content, PRESETS)
