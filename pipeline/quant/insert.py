"""Insert quantizers: from the canonical float graph to the QDQ graph that simulates the integers.

The result is a function of the graph, the calibration and the recipe alone; storage relies on it.
"""

from torch import fx

from pipeline.quant import observers, walk
from pipeline.quant.calibration import AdaLogParameters, Calibration, UniformParameters
from pipeline.quant.formats import AdaLog, Format, Uniform
from pipeline.quant.plan import Plan, make_plan
from pipeline.quant.recipe import Recipe
from pipeline.quant.roles import Role
from pipeline.quant.weights import QuantizedWeight, quantize_weight
from pipeline.quant.writer import GraphWriter

_LARGEST_BIAS = 2**29
"""Bound of integer biases: leaves an int32 accumulator three quarters of its range."""

_ADALOG_UNIT = 2.0**-15
"""Step, relative to the scale, of the fixed-point numbers that products read for AdaLog codes."""


def quantize_graph(
    graph: fx.GraphModule, calibration: Calibration, recipe: Recipe
) -> fx.GraphModule:
    """The QDQ graph: the canonical graph with every stored tensor quantized and dequantized.

    Args:
        graph: canonical float graph; it is not changed.
        calibration: parameters of the activations, from `calibrate` with the same graph and recipe.
        recipe: bits and formats.
    """
    return _Inserter(graph, calibration, recipe).run()


class _Inserter:
    def __init__(self, graph: fx.GraphModule, calibration: Calibration, recipe: Recipe) -> None:
        self.source = graph
        self.recipe = recipe
        self.plan: Plan = make_plan(graph.graph, recipe)
        self.parameters = calibration.tensors
        self.writer = GraphWriter(graph)
        self.values: dict[fx.Node, fx.Node] = {}  # float graph -> what consumers read here
        self.input_scales: dict[fx.Node, float] = {}  # of tensors in this graph, through views
        self.copies: dict[tuple[fx.Node, str], fx.Node] = {}

    def run(self) -> fx.GraphModule:
        for node in self.source.graph.nodes:
            self.values[node] = self._rewrite(node)
        return self.writer.finish()

    def _rewrite(self, node: fx.Node) -> fx.Node:
        if node.target in walk.WEIGHTED:
            return self._weighted(node)
        copied = self.writer.copy(node, self._read(node))
        if node.target in walk.VIEWS:
            self.input_scales[copied] = self.input_scales.get(copied.all_input_nodes[0], 0.0)
        return self._store(node, copied)

    def _read(self, node: fx.Node) -> dict[fx.Node, fx.Node]:
        """What the operator reads in the new graph, 8-bit copies where it needs them."""
        inputs = {n: self.values[n] for n in node.all_input_nodes}
        if node.target not in walk.GEMMS:
            return inputs
        is_matmul = node.target is walk.MATMUL
        tensors = walk.operands(node) if is_matmul else (walk.input_of(node),)
        for index, tensor in enumerate(tensors):
            if (copy := self.plan.copies.get((node.name, index))) is not None:
                key = (self.values[tensor], copy.key)
                if key not in self.copies:
                    name = f"{walk.module_path(walk.source(tensor))}:{Role.GEMM_IN}"
                    self.copies[key] = self._pair(key[0], copy.key, copy.format, name, Role.GEMM_IN)
                inputs[tensor] = self.copies[key]
            elif is_matmul and walk.is_constant(tensor):
                inputs[tensor] = self._constant_operand(f"{node.name}_operand", tensor)
        return inputs

    def _store(self, node: fx.Node, value: fx.Node) -> fx.Node:
        """Add the pair of a tensor that is stored; other tensors pass."""
        target = self.plan.formats.get(node.name)
        if target is None:
            return value
        role = self.plan.roles.tensors[node.name]
        return self._pair(value, node.name, target, f"{walk.module_path(node)}:{role}", role)

    def _pair(self, value: fx.Node, key: str, target: Format, name: str, role: Role) -> fx.Node:
        found = self.parameters[key]
        if isinstance(target, AdaLog):
            assert isinstance(found, AdaLogParameters)
            result = self.writer.adalog_pair(value, target, found, name, role)
            self.input_scales[result] = found.scale * _ADALOG_UNIT
            return result
        assert isinstance(found, UniformParameters)
        result = self.writer.uniform_pair(value, target, found, name, role)
        self.input_scales[result] = found.scale
        return result

    def _constant_operand(self, stem: str, tensor: fx.Node) -> fx.Node:
        """A matmul's stored operand: symmetric 8 bits, one scale."""
        data = self.writer.tensor(tensor)
        quantized = quantize_weight(data.unsqueeze(0), 8, self.recipe.weights.observer)
        return self.writer.weight(
            stem, QuantizedWeight(quantized.codes[0], quantized.scale[0]), axis=-1
        )

    def _weighted(self, node: fx.Node) -> fx.Node:
        """A convolution or linear with 8-bit weights; the bias stays float."""
        inputs = self._read(node)
        data, weight_node = node.args[:2]
        assert isinstance(data, fx.Node) and isinstance(weight_node, fx.Node)
        weight = self.writer.tensor(weight_node)
        bias_node = node.args[2] if len(node.args) > 2 else None
        bias = self.writer.tensor(bias_node) if isinstance(bias_node, fx.Node) else None
        input_scale = self.input_scales.get(inputs[data], 0.0)
        floor = None
        if bias is not None and input_scale:
            floor = bias.abs() / (input_scale * _LARGEST_BIAS)
        quantized = quantize_weight(weight, self._bits(node), self.recipe.weights.observer, floor)
        inputs[weight_node] = self.writer.weight(f"{node.name}_weight", quantized, axis=0)
        copied = self.writer.copy(node, inputs)
        if self.plan.roles.tensors[node.name] is Role.OUTPUT:
            return self._logits(node, copied, input_scale * float(quantized.scale.max()))
        return self._store(node, copied)

    def _bits(self, node: fx.Node) -> int:
        weights, roles = self.recipe.weights, self.plan.roles
        if node.name in roles.stem:
            return weights.stem_bits
        return weights.head_bits if node.name in roles.head else weights.bits

    def _logits(self, node: fx.Node, value: fx.Node, accumulator_scale: float) -> fx.Node:
        """The int32 pair of the last linear, at twice the largest accumulator scale."""
        scale = max(2 * accumulator_scale, observers.SCALE_FLOOR**2)
        target = self.plan.formats[node.name]
        assert isinstance(target, Uniform)
        name = f"{walk.module_path(node)}:{Role.OUTPUT}"
        return self.writer.uniform_pair(
            value, target, UniformParameters(scale, 0), name, Role.OUTPUT
        )
