"""What a method decides: quantizers of activations, codes of weights, corrected biases."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from pipeline.quant.plan import Bits
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.reparam.equalize import Equalization
from pipeline.quant.reparam.power_of_two import Exponents
from pipeline.quant.weights import QuantizedWeight


@dataclass(frozen=True)
class Quantization:
    """All that turns a canonical graph into a QDQ graph.

    Attributes:
        activations: key of the tensor -> quantizer, see `Plan.key_of`.
        weights: product -> codes and scales of its weights.
        biases: product -> bias in place of its own, float32 `[O]`.
        bits: product -> bits of its operands, where they are not those of the recipe.
        equalizations: of the float graph, before anything is quantized.
        exponents: of factors around tensors of the residual stream, likewise.
        images: number of photos that were seen.
        rectified: activations that became ReLU, before the equalizations; what products around them
            read and add instead is in `weights` and `biases`.
    """

    activations: Mapping[str, Quantizer]
    weights: Mapping[str, QuantizedWeight]
    biases: Mapping[str, Tensor] = field(default_factory=dict)
    bits: Bits = field(default_factory=dict)
    equalizations: tuple[Equalization, ...] = ()
    images: int = 0
    rectified: tuple[str, ...] = ()
    exponents: Exponents = field(default_factory=dict)
