"""The result of calibration: parameters of every activation quantizer, as plain data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class UniformParameters:
    """Parameters of a uniform quantizer.

    Attributes:
        scale: a value of float32.
        zero_point: the code of 0.0.
    """

    scale: float
    zero_point: int


@dataclass(frozen=True)
class AdaLogParameters:
    """Parameters of a logarithmic quantizer.

    Attributes:
        scale: value of code 0, a value of float32.
        q: numerator of the base's exponent.
    """

    scale: float
    q: int


Parameters = UniformParameters | AdaLogParameters


@dataclass(frozen=True)
class Calibration:
    """Parameters per tensor.

    Attributes:
        tensors: key of the tensor -> parameters. The key is the name of the producing node, with
            a suffix for the 8-bit copy of a 16-bit tensor (`gemm_input_key`).
        images: number of photos that were seen.
    """

    tensors: Mapping[str, Parameters]
    images: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; floats survive JSON exactly."""
        tensors = {key: asdict(value) for key, value in self.tensors.items()}
        return {"images": self.images, "tensors": tensors}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Calibration":
        """The inverse of `to_json`."""
        tensors = {
            key: AdaLogParameters(**v) if "q" in v else UniformParameters(**v)
            for key, v in data["tensors"].items()
        }
        return cls(tensors, data["images"])


def gemm_input_key(name: str, symmetric: bool) -> str:
    """Key of the 8-bit copy of tensor `name` that matrix products read."""
    return f"{name}:{'operand' if symmetric else 'gemm_in'}"
