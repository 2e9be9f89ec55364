"""Bias correction: what quantization adds to the mean of every output is taken off its bias.

Source: Liu et al. (NeurIPS 2021), section 3.2, last paragraph; in order, product by product, as in
Nagel et al. (ICCV 2019), section 4.2.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.constant_operands import restored_operands
from pipeline.quant.images import as_input
from pipeline.quant.initial import weight_and_bias
from pipeline.quant.plan import Plan
from pipeline.quant.quantization import Quantization
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.sites import Site, Weighted, weighted_output
from pipeline.quant.student import Student
from pipeline.quant.units import Unit, split_at_products
from pipeline.quant.weights import QuantizedWeight

_Values = dict[fx.Node, Tensor]  # of one photo


def corrected_biases(
    graph: fx.GraphModule,
    plan: Plan,
    activations: Mapping[str, Quantizer],
    weights: Mapping[str, QuantizedWeight],
    sites: Mapping[str, Site],
) -> dict[str, Tensor]:
    """Biases `[O]` in place of those of all sampled products that have one.

    Each is judged alone, on the inputs of its samples.
    """
    found = {}
    for node in graph.graph.nodes:
        site = sites.get(node.name)
        if node.target not in walk.WEIGHTED or not isinstance(site, Weighted):
            continue
        _, bias = weight_and_bias(graph, node)
        if bias is None:
            continue
        source = activations.get(plan.key_of(node, 0))
        x = site.x if source is None else source.fake(site.x)
        w = weights[node.name].dequantized().reshape(site.w.shape)
        counts = site.counts.reshape(-1, 1, 1)
        error = ((weighted_output(x, w) - site.y) * counts).sum(dim=0) / counts.sum()
        found[node.name] = bias - error.reshape(torch.Size(bias.shape))
    return found


def biases_in_order(
    graph: fx.GraphModule,
    teacher: fx.GraphModule,
    plan: Plan,
    found: Quantization,
    photos: Sequence[np.ndarray[Any, Any]],
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Tensor]:
    """Biases of a quantized network, each corrected on what the network makes of photos so far.

    Products that an MLP's own ReLU reads are left alone: the float network has no such tensor.

    Args:
        graph: canonical graph that was quantized.
        teacher: the float network, a graph of the same structure.
        plan: the graph's plan.
        found: the quantization; its biases are the start.
        photos: uint8 `[H, W, 3]`.
        progress: called with the number of products done.

    Returns:
        Product -> bias `[O]`: those of `found`, and one for every product that has a bias.
    """
    fakes = {key: quantizer.fake for key, quantizer in found.activations.items()}
    restored = {name: weight.dequantized() for name, weight in found.weights.items()}
    biases = dict(found.biases)
    student = Student(graph, plan, fakes, restored | restored_operands(graph), biases)
    exact = Student(teacher, plan, {}, {}, {})
    mine, wanted = _inputs(graph, photos), _inputs(teacher, photos)
    units, twins = split_at_products(graph.graph), split_at_products(teacher.graph)
    own = {walk.input_of(n).name for n in graph.graph.nodes if n.name in found.rectified}
    for done, (unit, twin) in enumerate(zip(units, twins, strict=True), start=1):
        product = unit.nodes[-1]
        wanted, target = _passed(exact, twin, twins[done:], wanted)
        passed, mean = _passed(student, unit, units[done:], mine)
        if product.target in walk.WEIGHTED and product.name not in own:
            _, bias = weight_and_bias(graph, product)
            bias = biases.get(product.name, bias)
            if bias is not None:
                biases[product.name] = bias - (mean - target)
                passed, _ = _passed(student, unit, units[done:], mine)
        mine = passed
        progress(done)
    return biases


def _inputs(graph: fx.GraphModule, photos: Sequence[np.ndarray[Any, Any]]) -> list[_Values]:
    (image,) = (node for node in graph.graph.nodes if node.op == "placeholder")
    return [{image: as_input(photo, graph)} for photo in photos]


def _passed(
    student: Student, unit: Unit, rest: Sequence[Unit], photos: Sequence[_Values]
) -> tuple[list[_Values], Tensor]:
    """What the rest reads of all photos, and the mean of every channel of the unit's product."""
    alive = {node for later in rest for node in later.inputs}
    means: list[Tensor] = []

    def observe(product: fx.Node, _: tuple[Tensor, ...], result: Tensor) -> None:
        axis = 1 if product.target is walk.CONV else -1
        means.append(result.movedim(axis, 0).flatten(1).mean(1))

    passed = []
    with torch.no_grad():
        for values in photos:
            env = student.run(unit.nodes, values, observe)
            passed.append({node: value for node, value in env.items() if node in alive})
    return passed, torch.stack(means).mean(dim=0)
