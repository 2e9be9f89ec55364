"""The QDQ graph: where quantizers stand, what feeds matrix products, and what it computes."""

from typing import Any

import pytest
import torch
from torch import fx

from pipeline.quant.evaluate import sqnr_db
from pipeline.quant.quantized import quantize_model
from pipeline.quant.recipe import Recipe, load_recipe
from pipeline.quant.simulate import simulate

aten, pocketvit = torch.ops.aten, torch.ops.pocketvit


def _quantized(graph: fx.GraphModule, images: Any, recipe: Recipe | str) -> fx.GraphModule:
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    return quantize_model(graph, images, recipe, {}).graph


def _calls(graph: fx.GraphModule, target: Any) -> list[fx.Node]:
    return [n for n in graph.graph.nodes if n.target is target]


def _codes_behind(node: fx.Node) -> fx.Node:
    """The quantize node (or weight codes) whose dequantized value reaches `node` through views."""
    while node.target is not pocketvit.dequantize.default:
        assert node.target in (aten.reshape.default, aten.permute.default, aten.select.int)
        node = node.args[0]
    return node.args[0]


def _dtype_behind(node: fx.Node) -> str:
    return _codes_behind(node).args[6]


@pytest.mark.parametrize(
    ("recipe", "least"), [("w8a8", 30), ("w8a8-int8", 25), ("w8a8-adalog", 30), ("w4a8", 18)]
)
def test_simulation_is_close_to_float(vit, images, recipe: str, least: float) -> None:
    quantized = _quantized(vit, images, recipe)
    assert sqnr_db(simulate(vit, images), simulate(quantized, images)) > least


def test_matrix_products_read_8_bits_except_softmax(vit, images) -> None:
    graph = _quantized(vit, images, "w8a8")
    for node in _calls(graph, aten.linear.default):
        assert _dtype_behind(node.args[0]) == "int8"
        assert _codes_behind(node.args[1]).op == "get_attr"
        assert node.args[1].args[3] == 0
    first, second = _calls(graph, aten.matmul.default)
    assert [_dtype_behind(n) for n in first.args] == ["int8", "int8"]
    assert [_dtype_behind(n) for n in second.args] == ["int16", "int8"]


def test_wide_tensor_gets_one_8_bit_copy_for_all_its_matrix_products(builder, images) -> None:
    x = builder.stem()
    y = builder.call(aten.add.Tensor, x, builder.conv(x, 8, path="a"))
    y = builder.call(aten.add.Tensor, y, builder.conv(y, 8, path="b"), path="last")
    z = builder.call(aten.mul.Tensor, builder.conv(y, 8, path="c"), builder.conv(y, 8, path="d"))
    graph = _quantized(
        builder.head(builder.tokens(builder.call(aten.add.Tensor, y, z))), images, "w8a8"
    )
    convs = {n.meta["module_path"]: n.args[0] for n in _calls(graph, aten.conv2d.default)}
    assert convs["c"] is convs["d"]
    copy = _codes_behind(convs["c"])
    assert copy.args[6] == "int8" and copy.args[7] == "last:gemm_in"
    assert _dtype_behind(copy.args[0]) == "int16"


def test_no_quantizer_between_logits_and_softmax(vit, images) -> None:
    graph = _quantized(vit, images, "w8a8")
    (softmax,) = _calls(graph, aten.softmax.int)
    mask_add = softmax.args[0]
    assert mask_add.target is aten.add.Tensor
    assert mask_add.args[0].target is aten.matmul.default


def test_talking_heads_read_16_bits(builder, images) -> None:
    heads = builder.call(aten.reshape.default, builder.tokens(builder.stem()), [1, 2, 16, 16])
    logits = builder.call(aten.matmul.default, heads, heads)
    weights = builder.call(aten.softmax.int, builder.conv(logits, 2, path="before"), -1)
    mixed = builder.conv(weights, 2, path="after")
    values = builder.call(aten.matmul.default, mixed, heads)
    model = builder.head(builder.call(aten.reshape.default, values, [1, 64, 8]))
    graph = _quantized(model, images, "w8a8-adalog")
    read = {
        n.meta["module_path"]: _dtype_behind(n.args[0])
        for n in _calls(graph, aten.conv2d.default)
        if n.meta["module_path"] != "stem"
    }
    assert read == {"before": "int16", "after": "int16"}
    assert [_dtype_behind(n) for n in _calls(graph, aten.matmul.default)[1].args] == ["int8"] * 2


def test_logits_are_int32_at_twice_the_largest_accumulator_scale(vit, images) -> None:
    graph = _quantized(vit, images, "w8a8")
    codes = next(n for n in graph.graph.nodes if n.op == "output").args[0].args[0]
    linear = codes.args[0]
    data_scale = getattr(graph, linear.args[0].args[1].target)
    weight_scale = getattr(graph, linear.args[1].args[1].target)
    assert codes.args[6] == "int32"
    torch.testing.assert_close(
        getattr(graph, codes.args[1].target), 2 * data_scale * weight_scale.max()
    )


def test_gelu_codes_are_shifted_and_softmax_codes_are_not(vit, images) -> None:
    graph = _quantized(vit, images, "w8a8-adalog")
    shifts = {
        n.args[0].args[6]: (n.args[0].args[5], n.args[5])
        for n in _calls(graph, pocketvit.adalog_dequantize.default)
    }
    c = pytest.approx(0.16997124254703522)
    assert shifts == {"attn.softmax:softmax": (0.0, 0.0), "mlp.act:post_gelu": (c, c)}


def test_integer_biases_fit_int32_even_where_weights_are_dead(builder, images) -> None:
    x = builder.stem()
    conv = builder.conv(x, 8, path="conv")
    weight, bias = (builder.tensors[n.target] for n in conv.args[1:3])
    weight[0] = 1e-9
    bias[0] = 5.0
    graph = _quantized(builder.head(builder.tokens(conv)), images, "w8a8")
    made = next(n for n in _calls(graph, aten.conv2d.default) if n.meta["module_path"] == "conv")
    data_scale, weight_scale = (getattr(graph, n.args[1].target) for n in made.args[:2])
    assert (bias.abs() / (data_scale * weight_scale)).max() <= 2**29 * 1.001


def test_weight_bits_by_place(vit, images) -> None:
    graph = _quantized(vit, images, "w4a8")
    largest = {
        n.meta["module_path"]: int(getattr(graph, n.args[1].args[0].target).abs().max())
        for n in graph.graph.nodes
        if n.target in (aten.linear.default, aten.conv2d.default)
    }
    assert (largest["stem"], largest["head"], largest["mlp.fc1"]) == (127, 127, 8)


def test_everything_is_8_bits_in_the_8_bit_recipe(vit, images) -> None:
    graph = _quantized(vit, images, "w8a8-int8")
    dtypes = {n.args[6] for n in _calls(graph, pocketvit.quantize.default)}
    assert dtypes == {"uint8", "int8", "int32"}


def test_the_float_graph_is_left_alone(vit, images) -> None:
    before = str(vit.graph)
    _quantized(vit, images, "w8a8")
    assert str(vit.graph) == before


def test_quantizers_are_named_by_module_and_role(vit, images) -> None:
    names = {n.args[7] for n in _calls(_quantized(vit, images, "w8a8"), pocketvit.quantize.default)}
    assert {"mlp.fc1:preact", "attn.softmax:softmax", "head:output"} <= names


def test_matmul_with_a_stored_operand(builder, images) -> None:
    x = builder.norm(builder.tokens(builder.stem()))
    y = builder.call(aten.matmul.default, builder.random_constant(1, 4, 64), x)
    model = builder.head(y)
    graph = _quantized(model, images, "w8a8")
    (product,) = _calls(graph, aten.matmul.default)
    assert product.args[0].target is pocketvit.dequantize.default
    assert sqnr_db(simulate(model, images), simulate(graph, images)) > 30


def test_the_graph_can_be_exported(vit, images) -> None:
    graph = _quantized(vit, images, "w8a8-adalog")
    exported = torch.export.export(graph, (torch.zeros(1, 8, 8, 3),))
    targets = {n.target for n in exported.graph.nodes}
    assert {pocketvit.quantize.default, pocketvit.adalog_dequantize.default} <= targets
