"""A QDQ graph with some of its layers back in float."""

import operator
from collections.abc import Set as AbstractSet

from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.sensitivity.layers import is_activation, is_dequantize, is_product, quantizer


def with_layers(
    graph: fx.GraphModule, float_graph: fx.GraphModule, quantized: AbstractSet[str]
) -> fx.GraphModule:
    """The QDQ graph in which only some layers are quantized.

    The operand of a layer that is left in float skips its pair of quantizers; weights and biases
    are those of the float graph. What several layers read is quantized for some and float for
    others.

    Args:
        graph: QDQ graph, whatever its formats; it is not changed.
        float_graph: the float graph that it was made from, with the same names of nodes.
        quantized: names of layers, see `find_layers`; all of them give the QDQ graph's numbers,
            none the float graph's.
    """
    return _Switch(graph, float_graph, quantized).run()


class _Switch:
    def __init__(
        self, graph: fx.GraphModule, float_graph: fx.GraphModule, quantized: AbstractSet[str]
    ) -> None:
        self.source = graph
        self.float_graph = float_graph
        self.floats = {node.name: node for node in float_graph.graph.nodes}
        self.quantized = quantized
        self.result = fx.Graph()
        self.tensors: dict[str, Tensor] = {}
        self.copies: dict[fx.Node, fx.Node] = {}
        self.views: dict[tuple[fx.Node, bool], fx.Node] = {}

    def run(self) -> fx.GraphModule:
        for node in self.source.graph.nodes:
            if node.op == "get_attr":
                self.tensors[str(node.target)] = _tensor(self.source, node)
            if node.target not in walk.VIEWS:  # views are copied for those who read them
                self.copies[node] = self._copy(node)
        self.result.eliminate_dead_code()
        self.result.lint()
        used = {str(node.target) for node in self.result.nodes if node.op == "get_attr"}
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in used}
        return fx.GraphModule(tensors, self.result)

    def _copy(self, node: fx.Node) -> fx.Node:
        if not is_product(node):
            return self.result.node_copy(node, self._own)
        on = node.name in self.quantized
        inputs = {}
        for operand in node.all_input_nodes:
            if not on and _is_stored(operand):
                inputs[operand] = self._stored(node, operand)
            else:
                inputs[operand] = self._read(operand, on)
        return self.result.node_copy(node, inputs.__getitem__)

    def _own(self, operand: fx.Node) -> fx.Node:
        """What any operator but a product reads: the pair is a layer itself."""
        return self._read(operand, walk.source(operand).name in self.quantized)

    def _read(self, node: fx.Node, on: bool) -> fx.Node:
        """A tensor in the new graph, through its pair of quantizers or past it."""
        if node.target in walk.VIEWS:
            if (node, on) not in self.views:
                viewed = self._read(walk.input_of(node), on)
                self.views[node, on] = self.result.node_copy(node, lambda _: viewed)
            return self.views[node, on]
        if is_activation(node) and not on:
            return self._own(walk.input_of(quantizer(node)))
        return self.copies[node]

    def _stored(self, product: fx.Node, operand: fx.Node) -> fx.Node:
        """The float graph's operand at the same place, with its views."""
        place = product.all_input_nodes.index(operand)
        found = self.floats[product.name].all_input_nodes[place]
        chain = [found]
        while chain[-1].target in walk.VIEWS:
            chain.append(walk.input_of(chain[-1]))
        name = f"float_{str(chain[-1].target).replace('.', '_')}"
        self.tensors[name] = _tensor(self.float_graph, chain[-1])
        read = self.result.get_attr(name)
        for view in reversed(chain[:-1]):
            read = self.result.node_copy(view, {walk.input_of(view): read}.__getitem__)
        return read


def _is_stored(operand: fx.Node) -> bool:
    """Whether it is a weight or a bias, which methods may correct too."""
    source = walk.source(operand)
    return source.op == "get_attr" or (is_dequantize(source) and not is_activation(source))


def _tensor(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    tensor = operator.attrgetter(str(node.target))(graph)
    assert isinstance(tensor, Tensor)
    return tensor.detach()
