"""The values that a stored tensor really takes, beside those that its codes can stand for."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.sensitivity.layers import operator_name, quantizer

PERCENTILES = (0.1, 1.0, 50.0, 99.0, 99.9)
SAMPLED = 4096  # values of each photo that percentiles are taken from


@dataclass(frozen=True)
class Quantizer:
    """The chosen parameters of a pair of quantizers.

    Attributes:
        operator: such as quantize or adalog_quantize.
        scale: one, or one per channel or head.
        low: least value that a code stands for; None where the format is not uniform.
        high: the greatest one.
    """

    operator: str
    scale: tuple[float, ...]
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class TensorRange:
    """Values of one stored tensor over all photos, before quantization.

    Attributes:
        name: of its pair of quantizers.
        role: of the tensor.
        module_path: where in the PyTorch model it came from.
        low: least value.
        high: greatest value.
        percentiles: value by percent, of a sample.
        clipped: share of the sample beyond what codes stand for; None as in `Quantizer`.
        spread: largest range of a channel by the median one: how badly one scale fits all.
        channel_low: least value per channel: axis 1 of maps and heads, the last one of tokens.
        channel_high: greatest value per channel.
        quantizer: what was chosen.
    """

    name: str
    role: str
    module_path: str
    low: float
    high: float
    percentiles: Mapping[str, float]
    clipped: float | None
    spread: float
    channel_low: tuple[float, ...]
    channel_high: tuple[float, ...]
    quantizer: Quantizer


class RangeStatistics:
    """Gathers what one tensor is, photo by photo, in little memory."""

    def __init__(self) -> None:
        """Nothing was seen."""
        self._low: Tensor | None = None
        self._high: Tensor | None = None
        self._sample: list[Tensor] = []

    def update(self, value: Tensor) -> None:
        """Add a photo's tensor, float32 `[1, ...]`."""
        axis = 1 if value.dim() == 4 else value.dim() - 1
        channels = value.movedim(axis, 0).flatten(1)
        low, high = channels.amin(dim=1), channels.amax(dim=1)
        self._low = low if self._low is None else torch.minimum(self._low, low)
        self._high = high if self._high is None else torch.maximum(self._high, high)
        flat = value.flatten()
        picked = torch.linspace(0, len(flat) - 1, min(SAMPLED, len(flat))).round().long()
        self._sample.append(flat[picked])

    def finish(self, graph: fx.GraphModule, pair: fx.Node) -> TensorRange:
        """What was seen of the tensor of a pair in a QDQ graph."""
        assert self._low is not None and self._high is not None
        low, high, sample = self._low, self._high, torch.cat(self._sample).double()
        chosen = read_quantizer(graph, pair)
        points = torch.tensor(PERCENTILES, dtype=torch.float64) / 100
        values = torch.quantile(sample, points).tolist()
        clipped = None
        if chosen.low is not None and chosen.high is not None:
            clipped = float(((sample < chosen.low) | (sample > chosen.high)).double().mean())
        widths = high - low
        return TensorRange(
            name=pair.name,
            role=str(quantizer(pair).meta.get("role", "tensor")),
            module_path=walk.module_path(pair),
            low=float(low.min()),
            high=float(high.max()),
            percentiles={f"{p:g}": v for p, v in zip(PERCENTILES, values, strict=True)},
            clipped=clipped,
            spread=float(widths.max() / widths.median().clamp(min=1e-12)),
            channel_low=tuple(low.tolist()),
            channel_high=tuple(high.tolist()),
            quantizer=chosen,
        )


def read_quantizer(graph: fx.GraphModule, pair: fx.Node) -> Quantizer:
    """The parameters of a pair of quantizers.

    Args:
        graph: the QDQ graph.
        pair: its second half.
    """
    node = quantizer(pair)
    name = operator_name(node)
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given: dict[str, Any] = dict(zip((a.name for a in schema), node.args, strict=False))
    scale = _value(graph, given["scale"])
    listed = tuple(scale.flatten().tolist())
    if name != "quantize":
        return Quantizer(name, listed)
    zero = _value(graph, given["zero_point"])
    low, high = (((given[key] - zero) * scale) for key in ("qmin", "qmax"))
    return Quantizer(name, listed, float(low.min()), float(high.max()))


def _value(graph: fx.GraphModule, argument: Any) -> Tensor:
    if isinstance(argument, fx.Node):
        tensor: Tensor = operator.attrgetter(str(argument.target))(graph)
        return tensor.detach().double()
    return torch.tensor(argument, dtype=torch.float64)
