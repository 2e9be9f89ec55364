"""Weights by observers alone: the start of every search, and all that simple recipes need."""

import operator
from collections.abc import Mapping

from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.plan import Plan
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.quantizers.uniform import UniformQuantizer
from pipeline.quant.recipe import Recipe
from pipeline.quant.weights import QuantizedWeight, WeightFormat, quantize_weight

_LARGEST_BIAS = 2**29
"""Bound of integer biases: leaves an int32 accumulator three quarters of its range."""


def tensor_of(graph: fx.GraphModule, constant: fx.Node) -> Tensor:
    """The stored tensor that a `get_attr` node refers to."""
    value = operator.attrgetter(str(constant.target))(graph)
    assert isinstance(value, Tensor)
    return value.detach()


def weight_and_bias(graph: fx.GraphModule, product: fx.Node) -> tuple[Tensor, Tensor | None]:
    """Weight `[O, ...]` and bias `[O]`, if there is one, of a convolution or linear."""
    weight = product.args[1]
    bias = product.args[2] if len(product.args) > 2 else None
    assert isinstance(weight, fx.Node)
    return tensor_of(graph, weight), tensor_of(graph, bias) if isinstance(bias, fx.Node) else None


def weight_format(product: str, plan: Plan, recipe: Recipe) -> WeightFormat:
    """The format of a product's weights."""
    return WeightFormat(plan.weights[product], recipe.weights.symmetric, recipe.weights.per_channel)


def smallest_scale(
    product: fx.Node, bias: Tensor | None, plan: Plan, activations: Mapping[str, Quantizer]
) -> Tensor | None:
    """The least scales of a product's weights with which its bias fits the accumulator, `[O]`."""
    source = activations.get(plan.key_of(product, 0))
    if bias is None or source is None:
        return None
    unit = min(source.scale) if isinstance(source, UniformQuantizer) else source.unit
    return bias.abs() / (unit * _LARGEST_BIAS)


def initial_weights(
    graph: fx.GraphModule, plan: Plan, recipe: Recipe, activations: Mapping[str, Quantizer]
) -> dict[str, QuantizedWeight]:
    """Codes of all weights by the recipe's observer."""
    found = {}
    for node in graph.graph.nodes:
        if node.target in walk.WEIGHTED:
            weight, bias = weight_and_bias(graph, node)
            floor = smallest_scale(node, bias, plan, activations)
            target = weight_format(node.name, plan, recipe)
            found[node.name] = quantize_weight(weight, target, recipe.weights.observer, floor)
    return found
