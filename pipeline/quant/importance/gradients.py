"""Squared gradients of products' outputs: what an error of a product's output costs the network.

With `(dL/dy)^2` as weight of the squared error, a search minimizes the second-order estimate of the
loss: PTQ4ViT (ECCV 2022), section 3.3, and Q-HyViT (2023), section III-C. PTQ4ViT's own loss is the
divergence of the network from itself, whose gradient is zero; a label drawn from the network's own
softmax gives an unbiased diagonal of the same Hessian instead (the Fisher information).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

from pipeline.quant.images import as_input
from pipeline.quant.initial import weight_and_bias, weight_format
from pipeline.quant.plan import Plan
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.recipe import Recipe
from pipeline.quant.reconstruct.trainable import TrainableFake
from pipeline.quant.sites import Site, sampled_outputs
from pipeline.quant.student import Student
from pipeline.quant.weights import quantize_weight

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of the logits `[1, classes]` of a photo, and of its input."""


def fisher(
    graph: fx.GraphModule,
    plan: Plan,
    photos: Sequence[np.ndarray[Any, Any]],
    sites: Mapping[str, Site],
    seed: int = 0,
) -> dict[str, Tensor]:
    """Squared gradients of the cross entropy with a label that the network itself might give.

    Args:
        graph: canonical graph.
        plan: its plan.
        photos: uint8 `[H, W, 3]`, those that were sampled.
        sites: samples of products.
        seed: draws the labels.

    Returns:
        Product -> weights shaped like `y` of its site, with mean 1 over all products together.
    """
    random = torch.Generator().manual_seed(seed)

    def loss(logits: Tensor, _: Tensor) -> Tensor:
        flat = logits.reshape(-1, logits.shape[-1])
        label = torch.multinomial(flat.detach().softmax(-1), 1, generator=random)
        return functional.cross_entropy(flat, label.squeeze(1))

    return _squared_gradients(Student(graph, plan, {}, {}, {}), photos, sites, loss)


def divergence(
    graph: fx.GraphModule,
    plan: Plan,
    recipe: Recipe,
    activations: Mapping[str, Quantizer],
    photos: Sequence[np.ndarray[Any, Any]],
    sites: Mapping[str, Site],
) -> dict[str, Tensor]:
    """Squared gradients of the divergence of the network quantized by extremes from the float one.

    Args:
        graph: canonical graph.
        plan: its plan.
        recipe: formats of weights.
        activations: key -> quantizer, by extremes.
        photos: uint8 `[H, W, 3]`, those that were sampled.
        sites: samples of products.

    Returns:
        See `fisher`.
    """
    exact = Student(graph, plan, {}, {}, {})
    nodes, last = _operators(graph)
    weights = {}
    for node in nodes:
        if node.name in plan.weights:
            weight, _ = weight_and_bias(graph, node)
            target = weight_format(node.name, plan, recipe)
            weights[node.name] = quantize_weight(weight, target, "minmax").dequantized()
    fakes = {key: TrainableFake(q, 0.0, plan.heads.get(key)) for key, q in activations.items()}

    def loss(logits: Tensor, image: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = exact.run(nodes, {nodes[0]: image})[last].log_softmax(-1)
        return functional.kl_div(
            logits.log_softmax(-1), wanted, reduction="batchmean", log_target=True
        )

    return _squared_gradients(Student(graph, plan, fakes, weights, {}), photos, sites, loss)


def _squared_gradients(
    student: Student,
    photos: Sequence[np.ndarray[Any, Any]],
    sites: Mapping[str, Site],
    loss: Loss,
) -> dict[str, Tensor]:
    nodes, last = _operators(student.graph)
    parts: dict[str, list[Tensor]] = {name: [] for name in sites}
    for index, photo in enumerate(photos):
        outputs: dict[fx.Node, Tensor] = {}

        def keep(
            node: fx.Node, _: tuple[Tensor, ...], result: Tensor, kept: dict = outputs
        ) -> None:
            kept[node] = result

        image = as_input(photo, student.graph).requires_grad_()
        logits = student.run(nodes, {nodes[0]: image}, keep)[last]
        wanted = [n for n in outputs if n.name in sites and index < len(sites[n.name].positions)]
        gradients = torch.autograd.grad(
            loss(logits, image.detach()), [outputs[n] for n in wanted], materialize_grads=True
        )
        for node, gradient in zip(wanted, gradients, strict=True):
            picked = sampled_outputs(node, sites[node.name], index, gradient)
            parts[node.name].append(picked.square())
    found = {name: torch.cat(part) for name, part in parts.items()}
    mean = sum(float(t.sum()) for t in found.values()) / sum(t.numel() for t in found.values())
    return {name: t / mean for name, t in found.items()} if mean > 0 else found


def _operators(graph: fx.GraphModule) -> tuple[list[fx.Node], fx.Node]:
    """The image, all operators, and the node of the logits."""
    (output,) = (n for n in graph.graph.nodes if n.op == "output")
    nodes = [n for n in graph.graph.nodes if n.op in ("placeholder", "call_function")]
    return nodes, output.all_input_nodes[0]
