"""Insert quantizers: from the canonical float graph to the QDQ graph that simulates the integers.

The result is a function of the graph, its plan and the quantization alone; storage relies on it.
"""

from torch import fx

from pipeline.quant import observers, walk
from pipeline.quant.constant_operands import quantized_operand
from pipeline.quant.plan import GemmInput, Plan, product_operands
from pipeline.quant.quantization import Quantization
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.quantizers.uniform import Uniform, UniformQuantizer
from pipeline.quant.roles import Role
from pipeline.quant.writer import GraphWriter


def quantize_graph(graph: fx.GraphModule, plan: Plan, found: Quantization) -> fx.GraphModule:
    """The QDQ graph: the canonical graph with every stored tensor quantized and dequantized.

    Args:
        graph: canonical float graph; it is not changed.
        plan: its plan.
        found: quantizers of all activations and weights of the plan.
    """
    return _Inserter(graph, plan, found).run()


class _Inserter:
    def __init__(self, graph: fx.GraphModule, plan: Plan, found: Quantization) -> None:
        self.source = graph
        self.plan = plan
        self.found = found
        self.writer = GraphWriter(graph)
        self.values: dict[fx.Node, fx.Node] = {}  # float graph -> what consumers read here
        self.copies: dict[tuple[fx.Node, str], fx.Node] = {}

    def run(self) -> fx.GraphModule:
        for node in self.source.graph.nodes:
            self.values[node] = self._rewrite(node)
        return self.writer.finish()

    def _rewrite(self, node: fx.Node) -> fx.Node:
        if node.target in walk.WEIGHTED:
            return self._weighted(node)
        return self._store(node, self.writer.copy(node, self._read(node)))

    def _read(self, node: fx.Node) -> dict[fx.Node, fx.Node]:
        """What the operator reads in the new graph, narrow copies where it needs them."""
        inputs = {n: self.values[n] for n in node.all_input_nodes}
        if node.target not in walk.GEMMS:
            return inputs
        for index, tensor in enumerate(product_operands(node)):
            if (copy := self.plan.copies.get((node.name, index))) is not None:
                inputs[tensor] = self._copy(tensor, copy)
            elif node.target is walk.MATMUL and walk.is_constant(tensor):
                inputs[tensor] = self._constant_operand(f"{node.name}_operand", tensor)
        return inputs

    def _copy(self, tensor: fx.Node, copy: GemmInput) -> fx.Node:
        """The narrow copy of a tensor, made once, and the views of it that operators read."""
        key, found = (tensor, copy.key), self.found.activations[copy.key]
        if key in self.copies:
            return self.copies[key]
        if tensor.target in walk.VIEWS:
            source = walk.input_of(tensor)
            self.copies[key] = self.writer.copy(tensor, {source: self._copy(source, copy)})
        else:
            name = f"{walk.module_path(tensor)}:{Role.GEMM_IN}"
            self.copies[key] = self.writer.pair(self.values[tensor], found, name, Role.GEMM_IN)
        return self.copies[key]

    def _store(self, node: fx.Node, value: fx.Node) -> fx.Node:
        """Add the pair of a tensor that is stored; other tensors pass."""
        if node.name not in self.plan.formats:
            return value
        role = self.plan.roles.tensors[node.name]
        found: Quantizer = self.found.activations[node.name]
        return self.writer.pair(value, found, f"{walk.module_path(node)}:{role}", role)

    def _constant_operand(self, stem: str, tensor: fx.Node) -> fx.Node:
        """A matmul's stored operand."""
        quantized = quantized_operand(self.writer.tensor(tensor))
        return self.writer.weight(stem, quantized.codes, quantized.scale[0], axis=-1)

    def _weighted(self, node: fx.Node) -> fx.Node:
        """A convolution or linear with quantized weights; the bias stays float."""
        inputs = self._read(node)
        weight_node = node.args[1]
        assert isinstance(weight_node, fx.Node)
        weight = self.found.weights[node.name]
        stem = f"{node.name}_weight"
        inputs[weight_node] = self.writer.weight(stem, weight.codes, weight.scale, axis=0)
        copied = self.writer.copy(node, inputs)
        bias = self.found.biases.get(node.name)
        if bias is not None:
            with_bias = self.writer.constant_before(copied, f"{node.name}_bias", bias)
            copied.args = (*copied.args[:2], with_bias, *copied.args[3:])
        if self.plan.roles.tensors[node.name] is Role.OUTPUT:
            return self._logits(node, copied, float(weight.scale.max()))
        return self._store(node, copied)

    def _logits(self, node: fx.Node, value: fx.Node, weight_scale: float) -> fx.Node:
        """The int32 pair of the last linear, at twice the largest accumulator scale."""
        source = self.found.activations[self.plan.key_of(node, 0)]
        input_scale = source.scale[0] if isinstance(source, UniformQuantizer) else source.unit
        scale = observers.as_float32(max(2 * input_scale * weight_scale, observers.SCALE_FLOOR**2))
        target = self.plan.formats[node.name]
        assert isinstance(target, Uniform)
        quantizer = UniformQuantizer(target, (scale,), (0,))
        return self.writer.pair(
            value, quantizer, f"{walk.module_path(node)}:{Role.OUTPUT}", Role.OUTPUT
        )
