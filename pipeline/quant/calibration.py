"""The result of calibration: a quantizer for every activation that is stored, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.quant import quantizers
from pipeline.quant.quantizers import Quantizer


@dataclass(frozen=True)
class Calibration:
    """Quantizers of activations.

    Attributes:
        tensors: key of the tensor -> quantizer. The key is the name of the producing node, with
            a suffix for the narrow copy of a wide tensor (`gemm_input_key`).
        images: number of photos that were seen.
    """

    tensors: Mapping[str, Quantizer]
    images: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; floats survive JSON exactly."""
        tensors = {key: quantizers.to_json(value) for key, value in self.tensors.items()}
        return {"images": self.images, "tensors": tensors}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Calibration":
        """The inverse of `to_json`."""
        tensors = {key: quantizers.from_json(value) for key, value in data["tensors"].items()}
        return cls(tensors, data["images"])


def gemm_input_key(name: str, symmetric: bool) -> str:
    """Key of the narrow copy of tensor `name` that products read."""
    return f"{name}:{'operand' if symmetric else 'gemm_in'}"
