"""Every quantizer belongs to a layer."""

from pipeline.sensitivity.layers import find_layers, is_activation, is_product, readers


def test_products_come_in_order_with_their_places_in_the_model(network):
    products = [layer for layer in find_layers(network.graph) if layer.product]
    assert [layer.module_path for layer in products] == [
        "stem", "attn.qkv", "attn.qk", "attn.av", "attn.proj", "mlp.fc1", "mlp.fc2", "head",
    ]  # fmt: skip
    assert {layer.operator for layer in products} == {"conv2d", "linear", "matmul"}


def test_every_pair_is_read_by_a_product_or_is_a_layer_itself(network):
    tensors = {layer.name for layer in find_layers(network.graph) if not layer.product}
    for node in network.graph.graph.nodes:
        if is_activation(node):
            others = [reader for reader in readers(node) if not is_product(reader)]
            assert (node.name in tensors) == bool(others)


def test_producers_are_nodes_of_the_float_graph(network):
    names = {node.name for node in network.floats.graph.nodes}
    assert all(layer.producer in names for layer in find_layers(network.graph))


def test_the_logits_are_a_layer(network):
    last = find_layers(network.graph)[-1]
    assert (last.operator, last.product) == ("output", False)
