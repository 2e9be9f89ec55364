"""What is trained: scales of activations by straight-through gradients, rounding of weights."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.quant.observers import as_float32
from pipeline.quant.quantizers import Quantizer, logarithmic, twin, uniform
from pipeline.quant.quantizers.logarithmic import LogarithmicQuantizer
from pipeline.quant.quantizers.uniform import UniformQuantizer
from pipeline.quant.weights import QuantizedWeight, WeightFormat

_STRETCH = 1.2
_MARGIN = 0.1


class _StraightThrough(torch.autograd.Function):
    """`fake(x, scale)`, differentiated as if nothing but clipping happened to x.

    Every family is homogeneous: what it restores is the scale times a function of x / scale. So the
    derivative by the scale is `(restored - x) / scale` where x is in range and `restored / scale`
    where it is clipped: LSQ (ICLR 2020), section 2.1.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, low: Tensor, high: Tensor, restored: Tensor) -> Tensor:
        """Pass what the quantizer restored."""
        return restored.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep what the derivatives need."""
        x, scale, low, high, restored = inputs
        inside = (x >= low * scale) & (x <= high * scale)
        ctx.save_for_backward(inside, (restored - x * inside) / scale, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and the scale."""
        inside, slope, scale = ctx.saved_tensors
        (gradient,) = gradients
        by_scale = (gradient * slope).sum_to_size(scale.shape)
        return gradient * inside, by_scale, None, None, None


class TrainableFake(nn.Module):
    """A quantizer whose scale is trained.

    Attributes:
        start: the quantizer as it was found.
        log_scale: logarithm of the factor on its scale, a scalar.
        drop: probability with which a value stays float.
    """

    def __init__(self, start: Quantizer, drop: float) -> None:
        """Begin with a quantizer's own scale."""
        super().__init__()
        self.start = start
        self.drop = drop
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Quantized and dequantized values, some left as they are."""
        scale = self._scale(x) * torch.exp(self.log_scale)
        low, high = self._reach(x)
        shift = self.start.format.shift if isinstance(self.start, LogarithmicQuantizer) else 0.0
        with torch.no_grad():
            restored = self._fake(x, scale)
        passed = _StraightThrough.apply(x + shift, scale, low, high, restored + shift)  # type: ignore[no-untyped-call]
        result: Tensor = passed - shift
        if self.drop == 0 or not self.training:
            return result
        return torch.where(torch.rand_like(x) < self.drop, x, result)

    def quantizer(self) -> Quantizer:
        """The quantizer with the trained scale."""
        factor = float(torch.exp(self.log_scale.detach()))
        if isinstance(self.start, UniformQuantizer):
            scale = tuple(as_float32(s * factor) for s in self.start.scale)
            return replace(self.start, scale=scale)
        return replace(self.start, scale=as_float32(self.start.scale * factor))

    def _scale(self, x: Tensor) -> Tensor:
        if not isinstance(self.start, UniformQuantizer):
            return torch.tensor(self.start.scale)
        return _along_axis(self.start.scale, self.start, x)

    def _zero_point(self, x: Tensor) -> Tensor:
        assert isinstance(self.start, UniformQuantizer)
        return _along_axis(self.start.zero_point, self.start, x)

    def _reach(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Least and greatest value that is not clipped, over the scale."""
        start = self.start
        if isinstance(start, UniformQuantizer):
            zero = self._zero_point(x)
            return start.format.qmin - zero, start.format.qmax - zero
        if isinstance(start, LogarithmicQuantizer):
            return torch.tensor(0.0), torch.tensor(1.0)
        largest = start.format.half - 1
        low = -largest if start.format.signed else 0
        return torch.tensor(low), torch.tensor(largest << start.ratio)

    def _fake(self, x: Tensor, scale: Tensor) -> Tensor:
        start = self.start
        if isinstance(start, UniformQuantizer):
            return uniform.fake(x, scale, self._zero_point(x), start.format)
        if isinstance(start, LogarithmicQuantizer):
            return logarithmic.fake(x, scale, torch.tensor(float(start.q)), start.format)
        return twin.fake(x, scale, torch.tensor(float(start.ratio)), start.format)


def _along_axis(values: tuple[float, ...], start: UniformQuantizer, x: Tensor) -> Tensor:
    """Parameters of a quantizer, shaped to broadcast against a tensor."""
    if start.is_per_tensor:
        return torch.tensor(values[0])
    shape = [1] * x.dim()
    shape[start.axis] = -1
    return torch.tensor(values).reshape(shape)


class TrainableRounding(nn.Module):
    """Weights whose codes are rounded up or down as training decides.

    Source: AdaRound (ICML 2020), section 3.2.

    Attributes:
        alpha: logits of rounding up, shaped like the weight.
    """

    def __init__(self, weight: Tensor, start: QuantizedWeight, target: WeightFormat) -> None:
        """Begin with the fractional parts of `weight / scale`.

        Args:
            weight: float `[O, ...]`.
            start: codes and scales that were found.
            target: their format.
        """
        super().__init__()
        shape = (-1, *[1] * (weight.dim() - 1))
        self.scale = start.scale.reshape(shape)
        assert start.zero_point is not None
        self.zero_point = start.zero_point
        zero = start.zero_point.reshape(shape)
        low, high = target.range
        self.low, self.high = low - zero, high - zero
        steps = weight / self.scale
        self.floor = torch.floor(steps)
        fraction = (steps - self.floor).clamp(0.01, 0.99)
        # Codes that were not rounded to the nearest keep their side.
        ahead = (start.codes - self.floor).clamp(0, 1)
        nearest = torch.floor(steps + 0.5) - self.floor
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
        return QuantizedWeight(codes.to(torch.int8), self.scale.flatten(), self.zero_point)
