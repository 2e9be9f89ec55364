"""The layers of a QDQ graph: products, and tensors that are stored between them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx

from pipeline.quant import walk

NAMESPACE = "pocketvit"


@dataclass(frozen=True)
class Layer:
    """What is quantized or left in float as a whole.

    Attributes:
        name: of the product's node, or of the tensor's pair of quantizers.
        producer: node of the float graph whose value is the layer's output.
        operator: conv2d, linear or matmul; for a tensor its role.
        module_path: where in the PyTorch model it came from.
        product: whether it is a product with its weights and the tensors that it reads, rather
            than a stored tensor that something else reads.
    """

    name: str
    producer: str
    operator: str
    module_path: str
    product: bool


def find_layers(graph: fx.GraphModule) -> list[Layer]:
    """The layers of a QDQ graph in its order.

    A product is a layer with all quantizers that it alone is affected by: those of its weights
    and, as far as it reads them, those of its inputs. Pairs that any other operator reads are
    layers too, as far as that one reads them.
    """
    return list(_layers(graph))


def _layers(graph: fx.GraphModule) -> Iterator[Layer]:
    for node in graph.graph.nodes:
        path = walk.module_path(node)
        if is_product(node):
            if any(is_dequantize(walk.source(operand)) for operand in node.all_input_nodes):
                yield Layer(node.name, node.name, operator_name(node), path, product=True)
        elif is_activation(node) and any(not is_product(user) for user in readers(node)):
            role = str(quantizer(node).meta.get("role", "tensor"))
            yield Layer(node.name, producer(node).name, role, path, product=False)


def is_product(node: fx.Node) -> bool:
    """Whether it is a convolution, linear or matmul."""
    return node.target in walk.GEMMS


def is_dequantize(node: fx.Node) -> bool:
    """Whether it turns codes of any format into numbers."""
    target = node.target
    return (
        isinstance(target, torch._ops.OpOverload)
        and target.namespace == NAMESPACE
        and operator_name(node).endswith("dequantize")
    )


def is_activation(node: fx.Node) -> bool:
    """Whether it is the second half of a pair of quantizers, and not a stored weight."""
    return is_dequantize(node) and walk.input_of(node).op == "call_function"


def quantizer(node: fx.Node) -> fx.Node:
    """The first half of a pair of quantizers."""
    return walk.input_of(node)


def readers(node: fx.Node) -> Iterator[fx.Node]:
    """Everything that reads a tensor, looking through views."""
    for user in node.users:
        if user.target in walk.VIEWS:
            yield from readers(user)
        else:
            yield user


def producer(node: fx.Node) -> fx.Node:
    """What a pair quantizes, looking back through pairs that it reads."""
    while is_dequantize(node):
        node = walk.input_of(quantizer(node))
    return node


def operator_name(node: fx.Node) -> str:
    """Such as conv2d or adalog_dequantize."""
    assert isinstance(node.target, torch._ops.OpOverload)
    return node.target._schema.name.partition("::")[2]
