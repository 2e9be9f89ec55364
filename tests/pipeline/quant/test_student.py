"""The student computes what the QDQ graph computes, whole or in part."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.constant_operands import restored_operands
from pipeline.quant.images import as_input
from pipeline.quant.insert import quantize_graph
from pipeline.quant.plan import make_plan
from pipeline.quant.quantized import find_quantization
from pipeline.quant.recipe import load_recipe, parse_recipe
from pipeline.quant.simulate import simulate
from pipeline.quant.student import Student, batched
from pipeline.quant.units import split_units
from tests.pipeline.quant.conftest import Builder
from tests.pipeline.quant.networks import NETWORKS

RECIPES: dict[str, dict[str, Any]] = {
    "w8a8": {},
    "w4a4": {
        "weights": {"bits": 4, "symmetric": False},
        "activations": {"bits": 4, "per_head": True},
        "softmax": {"format": "adalog"},
        "post_gelu": {"format": "adalog"},
    },
    "equalized, biases": {"equalize": {"tensors": "all"}, "bias_correction": True},
    "twin": {"softmax": {"format": "twin"}, "post_gelu": {"format": "twin"}},
}


def parts(name: str, content: dict[str, Any], images: Any) -> tuple[Student, fx.GraphModule]:
    """The student of a network under a recipe, and the QDQ graph."""
    recipe = parse_recipe({"name": "test", "calibration_images": 4} | content, "test")
    graph, found = find_quantization(NETWORKS[name](Builder()), images[:4], recipe)
    plan = make_plan(graph.graph, recipe)
    fakes = {key: quantizer.fake for key, quantizer in found.activations.items()}
    weights = {key: weight.dequantized() for key, weight in found.weights.items()}
    restored = weights | restored_operands(graph)
    student = Student(graph, plan, fakes, restored, found.biases)
    return student, quantize_graph(graph, plan, found)


def logits_step(quantized: fx.GraphModule) -> float:
    (last,) = (n for n in quantized.graph.nodes if n.op == "output")
    scale = last.all_input_nodes[0].args[1]
    return float(getattr(quantized, scale.target))


def logits_of(student: Student, image: Any) -> Tensor:
    nodes = [n for n in student.graph.graph.nodes if n.op in ("placeholder", "call_function")]
    env = student.run(nodes, {nodes[0]: as_input(image, student.graph)})
    return env[nodes[-1]]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_student_is_the_simulation(name: str, recipe: str, images) -> None:
    student, quantized = parts(name, RECIPES[recipe], images)
    expected = simulate(quantized, images[:3])
    found = torch.cat([logits_of(student, image) for image in images[:3]]).numpy()
    # All but the last: the logits are stored as multiples of an accumulator's step.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=0.5001 * logits_step(quantized))
    assert not np.allclose(found, simulate(student.graph, images[:3]), rtol=1e-3)


def test_units_of_the_student_are_the_whole(images) -> None:
    student, _ = parts("transformer", RECIPES["w4a4"], images)
    values: dict[fx.Node, Tensor] = {}
    for unit in split_units(student.graph.graph):
        (first, *_) = unit.inputs or unit.nodes
        inputs = values if unit.inputs else {first: as_input(images[0], student.graph)}
        values |= student.unit(unit, inputs)
    assert torch.equal(values[unit.outputs[0]], logits_of(student, images[0]))


def test_without_quantizers_it_is_the_float_network(vit, images) -> None:
    plan = make_plan(vit.graph, load_recipe("w8a8"))
    found = logits_of(Student(vit, plan, {}, {}, {}), images[0])
    assert torch.equal(found, vit(as_input(images[0], vit)))


def test_quantizers_are_left_out_one_by_one(images) -> None:
    student, _ = parts("transformer", RECIPES["w4a4"], images)
    every, exact = logits_of(student, images[0]), student.graph(as_input(images[0], student.graph))
    alone = Student(student.graph, student.plan, {}, {}, {})
    softmax = next(k for k in student.fakes if k.startswith("softmax"))
    one = Student(student.graph, student.plan, {softmax: student.fakes[softmax]}, {}, {})
    errors = [(logits_of(s, images[0]) - exact).abs().max() for s in (student, one, alone)]
    assert errors[0] > errors[1] > errors[2] == 0
    assert every.shape == exact.shape


def test_observers_see_what_products_read_and_return(vit, images) -> None:
    recipe = parse_recipe({"name": "test", "calibration_images": 4}, "test")
    graph, found = find_quantization(vit, images[:4], recipe)
    plan = make_plan(graph.graph, recipe)
    fakes = {key: quantizer.fake for key, quantizer in found.activations.items()}
    student = Student(graph, plan, fakes, {}, {})
    seen: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}
    nodes = [n for n in graph.graph.nodes if n.op in ("placeholder", "call_function")]
    student.run(
        nodes,
        {nodes[0]: as_input(images[0], graph)},
        lambda node, read, result: seen.update({node.name: (read, result)}),
    )
    assert seen.keys() == {n.name for n in nodes if n.target in walk.GEMMS}
    matmul = next(n for n in nodes if n.target is walk.MATMUL)
    (q, k), result = seen[matmul.name]
    assert torch.equal(q @ k, result)
    quantizer = found.activations[plan.key_of(matmul, 0)]
    assert torch.equal(quantizer.fake(q), q)


def test_photos_together_are_photos_one_by_one(images) -> None:
    student, _ = parts("hybrid", RECIPES["w8a8"], images)
    nodes = [n for n in student.graph.graph.nodes if n.op in ("placeholder", "call_function")]
    photos = torch.stack([as_input(image, student.graph) for image in images[:3]])
    together = batched(lambda photo: student.run(nodes, {nodes[0]: photo})[nodes[-1]])(photos)
    alone = torch.stack([logits_of(student, image) for image in images[:3]])
    # Sums in another order may move a value over the border of two codes.
    scale = float(alone.abs().max())
    torch.testing.assert_close(together, alone, rtol=0, atol=0.05 * scale)
