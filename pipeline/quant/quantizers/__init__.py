"""Number formats with their parameters: quantize, dequantize, fake-quantize; one file per family.

A new family is one such file and a line in `FAMILIES`, an entry in `pipeline.quant.writer` that
writes it into the graph, and its lowering.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.quant.quantizers.logarithmic import Logarithmic, LogarithmicQuantizer
from pipeline.quant.quantizers.twin import Twin, TwinQuantizer
from pipeline.quant.quantizers.uniform import Uniform, UniformQuantizer

Format = Uniform | Logarithmic | Twin
Quantizer = UniformQuantizer | LogarithmicQuantizer | TwinQuantizer

FAMILIES: dict[str, tuple[type[Format], type[Quantizer]]] = {
    "uniform": (Uniform, UniformQuantizer),
    "logarithmic": (Logarithmic, LogarithmicQuantizer),
    "twin": (Twin, TwinQuantizer),
}


def to_json(quantizer: Quantizer) -> dict[str, Any]:
    """Plain data; floats survive JSON exactly."""
    family = next(name for name, (_, kind) in FAMILIES.items() if isinstance(quantizer, kind))
    return {"family": family, **asdict(quantizer)}


def from_json(data: Mapping[str, Any]) -> Quantizer:
    """The inverse of `to_json`.

    Raises:
        KeyError: there is no such family.
        TypeError: the data lacks a part.
    """
    form, kind = FAMILIES[data["family"]]
    values = {key: _tuple(value) for key, value in data.items() if key not in ("family", "format")}
    parts = {key: _tuple(value) for key, value in data["format"].items()}
    return kind(form(**parts), **values)  # type: ignore[arg-type]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
