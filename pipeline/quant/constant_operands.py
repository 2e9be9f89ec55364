"""Stored tensors that products of two tensors read: queries that no photo changes, for one.

They have symmetric codes of 8 bits and one scale under every recipe, like weights of one channel.
"""

from dataclasses import replace

from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.initial import tensor_of
from pipeline.quant.weights import QuantizedWeight, WeightFormat, quantize_weight

_FORMAT = WeightFormat(8)


def constant_index(product: fx.Node) -> int | None:
    """Which argument of a product is a stored tensor, its weight included; None for neither."""
    if product.target in walk.WEIGHTED:
        return 1
    places = [i for i, tensor in enumerate(walk.operands(product)) if walk.is_constant(tensor)]
    return places[0] if places else None


def quantized_operand(data: Tensor) -> QuantizedWeight:
    """Codes shaped like the tensor and one scale `[1]`."""
    found = quantize_weight(data.flatten().unsqueeze(0), _FORMAT, "mse")
    return replace(found, codes=found.codes.reshape(data.shape))


def restored_operands(graph: fx.GraphModule) -> dict[str, Tensor]:
    """What matmuls of the quantized network read in place of their stored operands, by name."""
    found = {}
    for node in graph.graph.nodes:
        if node.target is walk.MATMUL and (index := constant_index(node)) is not None:
            operand = quantized_operand(tensor_of(graph, walk.operands(node)[index]))
            found[node.name] = operand.codes.float() * operand.scale
    return found
