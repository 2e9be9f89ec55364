"""Results of the parts of a quantization as pieces of work, and back."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from torch import Tensor

from pipeline.quant.mlp.train import MlpResult
from pipeline.quant.quantization import Quantization
from pipeline.quant.quantizers import Quantizer, from_json, to_json
from pipeline.quant.reconstruct.engine import UnitResult
from pipeline.quant.reparam.equalize import Equalization
from pipeline.quant.weights import QuantizedWeight
from pipeline.quant.work import Piece

Result = TypeVar("Result")

_PARTS = ("codes", "scale", "zero_point")


def of_unit(result: UnitResult) -> Piece:
    """What reconstruction makes of a unit."""
    return Piece(_weights(result.weights), {"activations": _activations(result.activations)})


def as_unit(piece: Piece) -> UnitResult:
    """The inverse of `of_unit`."""
    return UnitResult(_quantizers(piece.data["activations"]), _quantized_weights(piece.tensors))


def of_mlp(result: MlpResult) -> Piece:
    """What reconstruction makes of an MLP."""
    weights = {"expand_weight": result.expand[0], "reduce_weight": result.reduce[0]}
    return Piece(weights | {"expand_bias": result.expand[1], "reduce_bias": result.reduce[1]})


def as_mlp(piece: Piece) -> MlpResult:
    """The inverse of `of_mlp`."""
    t = piece.tensors
    return MlpResult((t["expand_weight"], t["expand_bias"]), (t["reduce_weight"], t["reduce_bias"]))


def of_quantization(found: Quantization) -> Piece:
    """What calibration and search make of a network."""
    biases = {f"{name}:bias": bias for name, bias in found.biases.items()}
    data = {
        "activations": _activations(found.activations),
        "bits": dict(found.bits),
        "equalizations": [asdict(one) for one in found.equalizations],
        "rectified": list(found.rectified),
        "exponents": dict(found.exponents),
        "images": found.images,
    }
    return Piece(_weights(found.weights) | biases, data)


def as_quantization(piece: Piece) -> Quantization:
    """The inverse of `of_quantization`."""
    data = piece.data
    biases = {
        name.removesuffix(":bias"): value
        for name, value in piece.tensors.items()
        if name.endswith(":bias")
    }
    equalizations = tuple(
        Equalization(one["tensor"], tuple(one["factor"]), tuple(one["shift"]), one["stream"])
        for one in data["equalizations"]
    )
    return Quantization(
        _quantizers(data["activations"]),
        _quantized_weights(piece.tensors),
        biases,
        data["bits"],
        equalizations,
        data["images"],
        tuple(data["rectified"]),
        {name: tuple(found) for name, found in data["exponents"].items()},
    )


def _activations(activations: Mapping[str, Quantizer]) -> dict[str, Any]:
    return {key: to_json(quantizer) for key, quantizer in activations.items()}


def _quantizers(data: Mapping[str, Any]) -> dict[str, Quantizer]:
    return {key: from_json(value) for key, value in data.items()}


def _weights(weights: Mapping[str, QuantizedWeight]) -> dict[str, Tensor]:
    return {
        f"{name}:{part}": value
        for name, weight in weights.items()
        for part in _PARTS
        if (value := getattr(weight, part)) is not None
    }


def _quantized_weights(tensors: Mapping[str, Tensor]) -> dict[str, QuantizedWeight]:
    names = [name.removesuffix(":codes") for name in tensors if name.endswith(":codes")]
    return {
        name: QuantizedWeight(*(tensors.get(f"{name}:{part}") for part in _PARTS))  # type: ignore[arg-type]
        for name in names
    }


def maybe(read: Callable[[Piece], Result], piece: Piece | None) -> Result | None:
    """What a piece says; None where there is none, or where it is not what is to be read."""
    if piece is None:
        return None
    try:
        return read(piece)
    except (KeyError, TypeError):
        return None
