"""The summary shows what is 8 and what is 16 bits."""

from pipeline.quant.quantized import quantize_model
from pipeline.quant.recipe import load_recipe
from pipeline.quant.summary import summarize


def test_roles_and_formats_are_listed(vit, images) -> None:
    lines = {
        (line.role, line.format): line.tensors
        for line in summarize(quantize_model(vit, images, load_recipe("w8a8"), {}).graph)
    }
    assert lines["softmax", "int16, 15 bits"] == 1
    assert lines["residual", "int16"] == 4
    assert lines["ln_out", "int8"] == 3
    assert lines["output", "int32"] == 1
    assert lines["weight", "int8"] == 6


def test_narrow_formats_say_their_bits(vit, images) -> None:
    lines = summarize(quantize_model(vit, images, load_recipe("w4a8"), {}).graph)
    weights = {line.format: line.tensors for line in lines if line.role == "weight"}
    assert weights == {"int8": 2, "int8, 4 bits": 4}


def test_products_with_bits_of_their_own_are_counted(vit, images) -> None:
    graph = quantize_model(vit, images, load_recipe("w8a8"), {}).graph
    lines = summarize(graph, {"a": 4, "b": 4, "c": 16})
    products = {line.format: line.tensors for line in lines if line.role == "product"}
    assert products == {"4 bits": 2, "16 bits": 1}
