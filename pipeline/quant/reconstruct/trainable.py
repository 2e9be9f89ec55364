"""What is trained: scales of activations by straight-through gradients, rounding of weights."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.quant.heads import Heads
from pipeline.quant.observers import as_float32
from pipeline.quant.quantizers import Quantizer, logarithmic, twin
from pipeline.quant.quantizers.logarithmic import LogarithmicQuantizer
from pipeline.quant.quantizers.uniform import Uniform, UniformQuantizer
from pipeline.quant.reconstruct.straight_through import straight_through
from pipeline.quant.weights import QuantizedWeight, WeightFormat

_STRETCH = 1.2
_MARGIN = 0.1


class TrainableFake(nn.Module):
    """A quantizer whose scale is trained.

    Attributes:
        start: the quantizer as it was found.
        drop: probability with which a value stays float.
        log_scale: logarithms of the factors on its scale, one, or one per head.
    """

    def __init__(self, start: Quantizer, drop: float, heads: Heads | None = None) -> None:
        """Begin with a quantizer's own scale.

        Args:
            start: the quantizer.
            drop: probability with which a value stays float.
            heads: of its channels, where every head has a scale.
        """
        super().__init__()
        self.start = start
        self.drop = drop
        several = isinstance(start, UniformQuantizer) and not start.is_per_tensor
        self._head = torch.tensor(heads.head if heads is not None and several else [0])
        self.log_scale = nn.Parameter(torch.zeros(int(self._head.max()) + 1))

    def forward(self, x: Tensor) -> Tensor:
        """Quantized and dequantized values, some left as they are."""
        scale = self._shaped(self.start.scale, x) * torch.exp(self._shaped(self._factors(), x))
        drop = self.drop if self.training else 0.0
        if isinstance(self.start, LogarithmicQuantizer):
            # What is homogeneous is the quantizer of the shifted values.
            shift = self.start.format.shift
            return straight_through(x + shift, scale, self._restore, drop) - shift
        return straight_through(x, scale, self._restore, drop)

    def quantizer(self) -> Quantizer:
        """The quantizer with the trained scale."""
        factors = torch.exp(self._factors().detach()).tolist()
        if isinstance(self.start, UniformQuantizer):
            if len(factors) == 1:
                factors *= len(self.start.scale)
            pairs = zip(self.start.scale, factors, strict=True)
            return replace(self.start, scale=tuple(as_float32(s * f) for s, f in pairs))
        return replace(self.start, scale=as_float32(self.start.scale * factors[0]))

    def _factors(self) -> Tensor:
        return self.log_scale[self._head.to(self.log_scale.device)]

    def _shaped(self, values: float | tuple[float, ...] | Tensor, x: Tensor) -> Tensor:
        """One value for the tensor, or one per index of the quantizer's axis."""
        tensor = torch.as_tensor(values, device=x.device)
        if tensor.numel() == 1:
            return tensor.reshape(())
        assert isinstance(self.start, UniformQuantizer)
        shape = [1] * x.dim()
        shape[self.start.axis] = -1
        return tensor.reshape(shape)

    def _restore(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Restored values, and where nothing was clipped."""
        start = self.start
        if isinstance(start, UniformQuantizer):
            # Photos may lie in front of the axes that the quantizer knows.
            zero = torch.tensor(start.zero_point, device=x.device)
            zero = zero[:1] if scale.dim() == 0 else zero
            return _restore_uniform(x, scale, zero.reshape(scale.shape), start.format)
        if isinstance(start, LogarithmicQuantizer):
            unshifted = replace(start.format, shift=0.0)
            q = torch.tensor(float(start.q), device=x.device)
            return logarithmic.fake(x, scale, q, unshifted), (x >= 0) & (x <= scale)
        largest = start.format.half - 1
        low = -largest if start.format.signed else 0
        ratio = torch.tensor(float(start.ratio), device=x.device)
        inside = (x >= low * scale) & (x <= (largest << start.ratio) * scale)
        return twin.fake(x, scale, ratio, start.format), inside


def _restore_uniform(
    x: Tensor, scale: Tensor, zero: Tensor, target: Uniform
) -> tuple[Tensor, Tensor]:
    low, high = target.qmin - zero, target.qmax - zero
    codes = (x / scale).add_(0.5).floor_()
    inside = (codes >= low) & (codes <= high)
    return codes.clamp_(low, high).mul_(scale), inside


class TrainableRounding(nn.Module):
    """Weights whose codes are rounded up or down as training decides.

    Source: AdaRound (ICML 2020), section 3.2.

    Attributes:
        alpha: logits of rounding up, shaped like the weight.
    """

    scale: Tensor
    zero_point: Tensor
    floor: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, weight: Tensor, start: QuantizedWeight, target: WeightFormat) -> None:
        """Begin with the fractional parts of `weight / scale`.

        Args:
            weight: float `[O, ...]`.
            start: codes and scales that were found.
            target: their format.
        """
        super().__init__()
        shape = (-1, *[1] * (weight.dim() - 1))
        assert start.zero_point is not None
        zero = start.zero_point.reshape(shape)
        low, high = target.range
        scale = start.scale.reshape(shape)
        steps = weight / scale
        floor = torch.floor(steps)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", start.zero_point)
        self.register_buffer("floor", floor)
        self.register_buffer("low", low - zero)
        self.register_buffer("high", high - zero)
        fraction = (steps - floor).clamp(0.01, 0.99)
        # Codes that were not rounded to the nearest keep their side.
        ahead = (start.codes - floor).clamp(0, 1)
        nearest = torch.floor(steps + 0.5) - floor
        fraction = torch.where(ahead == nearest, fraction, 0.5 + 0.2 * (ahead - 0.5))
        self.alpha = nn.Parameter(torch.logit((fraction + _MARGIN) / _STRETCH))

    def soft(self) -> Tensor:
        """How far every code is rounded up, 0 to 1."""
        return (_STRETCH * torch.sigmoid(self.alpha) - _MARGIN).clamp(0, 1)

    def forward(self) -> Tensor:
        """The weight with soft rounding."""
        codes = torch.minimum(torch.maximum(self.floor + self.soft(), self.low), self.high)
        return codes * self.scale

    def penalty(self, beta: float) -> Tensor:
        """Distance of the rounding from 0 and 1, summed."""
        return (1 - (2 * self.soft() - 1).abs().pow(beta)).sum()

    def quantized(self) -> QuantizedWeight:
        """The weight with the rounding decided."""
        up = (self.alpha.detach() >= 0).float()
        codes = torch.minimum(torch.maximum(self.floor + up, self.low), self.high)
        return QuantizedWeight(
            codes.to(torch.int8).cpu(), self.scale.flatten().cpu(), self.zero_point.cpu()
        )
