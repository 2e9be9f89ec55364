"""Sequential order: later units see what the quantized ones before them compute."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx

from pipeline.errors import UserError
from pipeline.quant.plan import make_plan
from pipeline.quant.quantized import find_quantization
from pipeline.quant.recipe import Recipe, parse_recipe
from pipeline.quant.sequential import quantize_in_order
from pipeline.quant.sites import Sampling
from pipeline.quant.student import Student
from pipeline.quant.units import split_units

Images = list[np.ndarray[Any, Any]]


def _recipe(**content: Any) -> Recipe:
    return parse_recipe({"name": "x", "calibration_images": 4, **content}, "x")


def _sequential(bits: int = 8, **search: Any) -> Recipe:
    return _recipe(
        weights={"bits": bits},
        activations={"bits": bits},
        search={"order": "sequential", "count": 20, **search},
    )


def test_every_tensor_and_every_weight_of_the_plan_is_quantized(
    vit: fx.GraphModule, images: Images
) -> None:
    recipe = _sequential()
    plan = make_plan(vit.graph, recipe)
    found = quantize_in_order(vit, images[:4], recipe, plan, Sampling())
    parallel = _recipe(search={"count": 20})
    _, other = find_quantization(vit, images[:4], parallel)
    assert found.activations.keys() == other.activations.keys()
    assert found.weights.keys() == other.weights.keys()


def test_the_first_unit_is_quantized_as_in_parallel(vit: fx.GraphModule, images: Images) -> None:
    _, first = find_quantization(vit, images[:4], _sequential(4))
    _, other = find_quantization(
        vit,
        images[:4],
        _recipe(weights={"bits": 4}, activations={"bits": 4}, search={"count": 20}),
    )
    stem = next(n.name for n in split_units(vit.graph)[0].products)
    assert torch.equal(first.weights[stem].codes, other.weights[stem].codes)


def test_observers_see_the_quantized_network(vit: fx.GraphModule, images: Images) -> None:
    recipe = _recipe(
        weights={"bits": 2, "observer": "minmax"},
        activations={"observer": "minmax", "order": "sequential"},
    )
    _, found = find_quantization(vit, images[:4], recipe)
    plan = make_plan(vit.graph, recipe)
    fakes = {key: quantizer.fake for key, quantizer in found.activations.items()}
    weights = {name: weight.dequantized() for name, weight in found.weights.items()}
    units = split_units(vit.graph)
    name = units[-1].products[0].name
    greatest = 0.0

    def observe(node: fx.Node, read: tuple[Tensor, ...], result: Tensor) -> None:
        nonlocal greatest
        if node.name == name:
            greatest = max(greatest, float(read[0].abs().max()))

    student = Student(vit, plan, fakes, weights, {})
    nodes = [n for unit in units for n in unit.nodes]
    image = nodes[0]
    for photo in images[:4]:
        pixels = torch.from_numpy(photo).float().unsqueeze(0)
        student.run(nodes, {image: pixels}, observe)
    product = next(n for n in vit.graph.nodes if n.name == name)
    seen = found.activations[plan.key_of(product, 0)]
    (zero,) = seen.zero_point
    reach = max(seen.format.qmax - zero, zero - seen.format.qmin)
    assert greatest == pytest.approx(reach * seen.scale[0], rel=0.02)


def test_later_units_make_up_for_errors_of_earlier_ones(
    vit: fx.GraphModule, images: Images
) -> None:
    """With biases corrected in order, the mean error of the logits all but disappears."""
    content = {"weights": {"bits": 3}, "bias_correction": True}
    errors = {}
    for order in ("parallel", "sequential"):
        recipe = _recipe(search={"order": order, "count": 20, "rows": 0}, **content)
        _, found = find_quantization(vit, images[:4], recipe)
        plan = make_plan(vit.graph, recipe)
        fakes = {key: quantizer.fake for key, quantizer in found.activations.items()}
        weights = {name: weight.dequantized() for name, weight in found.weights.items()}
        student = Student(vit, plan, fakes, weights, found.biases)
        exact = Student(vit, plan, {}, {}, {})
        nodes = [n for unit in split_units(vit.graph) for n in unit.nodes]
        differences = []
        for photo in images[:4]:
            pixels = torch.from_numpy(photo).float().unsqueeze(0)
            a, b = (s.run(nodes, {nodes[0]: pixels})[nodes[-1]] for s in (student, exact))
            differences.append(a - b)
        errors[order] = float(torch.cat(differences).mean(0).abs().max())
    assert errors["sequential"] < 0.2 * errors["parallel"]


def test_too_few_photos_are_refused(vit: fx.GraphModule, images: Images) -> None:
    with pytest.raises(UserError, match="needs 4 photos but there are only 3"):
        find_quantization(vit, images[:3], _sequential())
