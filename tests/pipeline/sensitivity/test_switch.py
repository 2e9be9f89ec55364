"""Layers of a QDQ graph go back to float one by one, and only they."""

import numpy as np
import pytest
import torch
from torch import fx

from pipeline.quant.formats import int8
from pipeline.quant.quantizers.uniform import UniformQuantizer
from pipeline.quant.simulate import simulate
from pipeline.quant.weights import WeightFormat, quantize_weight
from pipeline.quant.writer import GraphWriter
from pipeline.sensitivity.layers import find_layers, is_dequantize
from pipeline.sensitivity.switch import with_layers

aten = torch.ops.aten


def all_names(graph: fx.GraphModule) -> frozenset[str]:
    return frozenset(layer.name for layer in find_layers(graph))


def test_with_all_layers_it_is_the_quantized_graph(network):
    switched = with_layers(network.graph, network.floats, all_names(network.graph))
    found, expected = (simulate(graph, network.photos) for graph in (switched, network.graph))
    assert np.array_equal(found, expected)


def test_without_layers_it_is_the_float_graph(network):
    switched = with_layers(network.graph, network.floats, frozenset())
    assert not any(map(is_dequantize, switched.graph.nodes))
    found, expected = (simulate(graph, network.photos) for graph in (switched, network.floats))
    assert np.array_equal(found, expected)


def test_every_layer_changes_the_logits_by_itself(network):
    expected = simulate(network.floats, network.photos)
    for layer in find_layers(network.graph):
        switched = with_layers(network.graph, network.floats, {layer.name})
        assert not np.array_equal(simulate(switched, network.photos), expected), layer


def test_the_quantized_graph_stays_as_it_is(network):
    before = network.graph.code
    with_layers(network.graph, network.floats, frozenset())
    assert network.graph.code == before


SCALE = 0.5


@pytest.fixture
def shared(builder) -> tuple[fx.GraphModule, fx.GraphModule]:
    """A tensor that two linears and a sum read, in float and quantized coarsely."""
    x = builder.tokens(builder.stem())
    left, right = builder.linear(x, 8), builder.linear(x, 8)
    total = builder.call(aten.add.Tensor, builder.call(aten.add.Tensor, left, right), x)
    floats = builder.finish(total)
    writer, values = GraphWriter(floats), {}
    for node in floats.graph.nodes:
        inputs = {operand: values[operand] for operand in node.all_input_nodes}
        if node.target is aten.linear.default:
            weight = quantize_weight(writer.tensor(node.args[1]), WeightFormat(3), "minmax")
            inputs[node.args[1]] = writer.weight(
                f"{node.name}_weight", weight.codes, weight.scale, axis=0
            )
        values[node] = writer.copy(node, inputs)
        if node is x:
            quantizer = UniformQuantizer(int8(4), (SCALE,), (0,))
            values[node] = writer.pair(values[node], quantizer, "x", "residual")
    return floats, writer.finish()


def test_what_several_read_is_quantized_for_the_one_that_is_asked_for(shared):
    floats, graph = shared
    left, right = (layer for layer in find_layers(graph) if layer.product)
    (tensor,) = (layer for layer in find_layers(graph) if not layer.product)
    photo = torch.full((1, 8, 8, 3), 100.0)
    values = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n):
            values[n.name] = super().run_node(n)
            return values[n.name]

    Recorder(floats).run(photo)
    x = values[tensor.producer]
    exact = {name: values[name] for name in (left.name, right.name)}
    noisy = torch.floor(x / SCALE + 0.5).clamp(-8, 7) * SCALE
    assert not torch.equal(x, noisy)

    def expected(layer):
        codes = getattr(graph, f"{layer.name}_weight_codes").float()
        weight = codes * getattr(graph, f"{layer.name}_weight_scale").reshape(-1, 1)
        bias = next(n for n in floats.graph.nodes if n.name == layer.name).args[2]
        return torch.nn.functional.linear(noisy, weight, getattr(floats, bias.target))

    cases = {
        frozenset({left.name}): expected(left) + exact[right.name] + x,
        frozenset({right.name}): exact[left.name] + expected(right) + x,
        frozenset({tensor.name}): exact[left.name] + exact[right.name] + noisy,
        frozenset({left.name, tensor.name}): expected(left) + exact[right.name] + noisy,
    }
    for names, value in cases.items():
        assert torch.allclose(with_layers(graph, floats, names)(photo), value, atol=1e-5)
