"""Squared gradients of products' outputs: what an error of a product's output costs the network.

With `(dL/dy)^2` as weight of the squared error, a search minimizes the second-order estimate of the
loss: PTQ4ViT (ECCV 2022), section 3.3, and Q-HyViT (2023), section III-C. PTQ4ViT's own loss is the
divergence of the network from itself, whose gradient is zero; a label drawn from the network's own
softmax gives an unbiased diagonal of the same Hessian instead (the Fisher information).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

from pipeline.quant import walk
from pipeline.quant.constant_operands import restored_operands
from pipeline.quant.images import as_input
from pipeline.quant.initial import weight_and_bias, weight_format
from pipeline.quant.plan import Plan
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.recipe import Recipe
from pipeline.quant.reconstruct.trainable import TrainableFake
from pipeline.quant.sites import Draw, Sampling, generators, is_sampled, output_rows
from pipeline.quant.student import Student
from pipeline.quant.weights import quantize_weight

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of the logits `[1, classes]` of a photo, and of its input."""


@dataclass(frozen=True)
class Importance:
    """What errors of sampled outputs cost.

    Attributes:
        draws: where samples are taken: half of them evenly, half where gradients are large. A
            class token is one row of hundreds, and what it says is all that counts in the end.
        weights: product -> squared gradients, times the positions that a sample stands for,
            shaped like `y` of its site; mean 1 over all products together.
    """

    draws: dict[str, Draw]
    weights: dict[str, Tensor]


def fisher(
    graph: fx.GraphModule,
    plan: Plan,
    photos: Sequence[np.ndarray[Any, Any]],
    sampling: Sampling,
) -> Importance:
    """Squared gradients of the cross entropy with a label that the network itself might give.

    Args:
        graph: canonical graph.
        plan: its plan.
        photos: uint8 `[H, W, 3]`, those that will be sampled.
        sampling: how much of every product; its seed draws the labels as well.
    """
    random = torch.Generator().manual_seed(sampling.seed)

    def loss(logits: Tensor, _: Tensor) -> Tensor:
        flat = logits.reshape(-1, logits.shape[-1])
        label = torch.multinomial(flat.detach().softmax(-1), 1, generator=random)
        return functional.cross_entropy(flat, label.squeeze(1))

    return _squared_gradients(Student(graph, plan, {}, {}, {}), photos, sampling, loss)


def divergence(
    graph: fx.GraphModule,
    plan: Plan,
    recipe: Recipe,
    activations: Mapping[str, Quantizer],
    photos: Sequence[np.ndarray[Any, Any]],
    sampling: Sampling,
) -> Importance:
    """Squared gradients of the divergence of the network quantized by extremes from the float one.

    Args:
        graph: canonical graph.
        plan: its plan.
        recipe: formats of weights.
        activations: key -> quantizer, by extremes.
        photos: uint8 `[H, W, 3]`, those that will be sampled.
        sampling: how much of every product.
    """
    exact = Student(graph, plan, {}, {}, {})
    nodes, last = _operators(graph)
    weights = restored_operands(graph)
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

    return _squared_gradients(Student(graph, plan, fakes, weights, {}), photos, sampling, loss)


def _squared_gradients(
    student: Student,
    photos: Sequence[np.ndarray[Any, Any]],
    sampling: Sampling,
    loss: Loss,
) -> Importance:
    nodes, last = _operators(student.graph)
    random = generators(student.graph.graph, sampling.seed)
    drawn: dict[str, list[_Drawn]] = {}
    for index, photo in enumerate(photos):
        outputs: dict[fx.Node, Tensor] = {}

        def keep(
            node: fx.Node, _: tuple[Tensor, ...], result: Tensor, kept: dict = outputs
        ) -> None:
            kept[node] = result

        image = as_input(photo, student.graph).requires_grad_()
        logits = student.run(nodes, {nodes[0]: image}, keep)[last]
        wanted = [n for n in outputs if is_sampled(n, index, sampling)]
        gradients = torch.autograd.grad(
            loss(logits, image.detach()), [outputs[n] for n in wanted], materialize_grads=True
        )
        for node, gradient in zip(wanted, gradients, strict=True):
            squares = output_rows(node, gradient).square()
            drawn.setdefault(node.name, []).append(
                _draw(node, squares, sampling.rows, random[node])
            )
    weights = {name: torch.cat([one.weights for one in parts]) for name, parts in drawn.items()}
    mean = sum(float(t.sum()) for t in weights.values()) / sum(t.numel() for t in weights.values())
    draws = {
        name: Draw(
            torch.stack([one.positions for one in parts]),
            torch.stack([one.counts for one in parts]),
            torch.stack([one.importance for one in parts]),
        )
        for name, parts in drawn.items()
    }
    return Importance(
        draws, {name: t / mean for name, t in weights.items()} if mean > 0 else weights
    )


@dataclass(frozen=True)
class _Drawn:
    """Samples of one product and photo; see `Draw`.

    Attributes:
        positions: int64 `[rows]`.
        counts: `[rows]`.
        importance: of all positions, `[all]`.
        weights: of the errors of the sampled outputs.
    """

    positions: Tensor
    counts: Tensor
    importance: Tensor
    weights: Tensor


def _draw(node: fx.Node, squares: Tensor, rows: int, random: torch.Generator) -> _Drawn:
    axis = squares.dim() - 2 if node.target is walk.MATMUL else 0
    energy = squares.movedim(axis, 0).flatten(1).sum(1).double()
    count, total = len(energy), float(energy.sum())
    even = torch.full_like(energy, 1 / count)
    share = (even + energy / total) / 2 if total > 0 else even
    chances = inclusion(share, min(rows, count))
    picked = systematic_sample(chances, random)
    counts = (len(picked) / count / chances[picked]).float()
    shape = [1] * squares.dim()
    shape[axis] = -1
    weights = squares.index_select(axis, picked) * counts.reshape(shape)
    return _Drawn(picked, counts, (share * count).float(), weights)


def inclusion(share: Tensor, taken: int) -> Tensor:
    """Chances `[n]` to be drawn, in proportion to shares but at most 1, whose sum is `taken`."""
    chances = torch.ones_like(share)
    certain = torch.zeros_like(share, dtype=torch.bool)
    while not certain.all() and taken < len(share):
        chances = torch.where(certain, 1.0, share)
        left = taken - int(certain.sum())
        chances[~certain] *= left / share[~certain].sum()
        beyond = (chances > 1) & ~certain
        if not beyond.any():
            break
        certain |= beyond
    return chances


def systematic_sample(chances: Tensor, random: torch.Generator) -> Tensor:
    """Positions drawn with exactly these chances, as many as their sum says, sorted."""
    taken = round(float(chances.sum()))
    start = torch.rand(1, generator=random, dtype=torch.float64)
    found = torch.searchsorted(chances.cumsum(0), start + torch.arange(taken), right=True)
    return found.clamp(max=len(chances) - 1)


def _operators(graph: fx.GraphModule) -> tuple[list[fx.Node], fx.Node]:
    """The image, all operators, and the node of the logits."""
    (output,) = (n for n in graph.graph.nodes if n.op == "output")
    nodes = [n for n in graph.graph.nodes if n.op in ("placeholder", "call_function")]
    return nodes, output.all_input_nodes[0]
