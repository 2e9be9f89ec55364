"""Scores: how much harm a group of products does when it alone is quantized to some bits.

Smaller is better, and scores of different groups add up. All but the group stays float. A new
score is a class here and a line in `SCORES`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.allocate.groups import Group
from pipeline.quant.calibrate import calibrate
from pipeline.quant.constant_operands import restored_operands
from pipeline.quant.images import as_input
from pipeline.quant.initial import initial_weights
from pipeline.quant.plan import Plan, make_plan, product_operands
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.recipe import Recipe
from pipeline.quant.student import Student

Values = dict[fx.Node, Tensor]
Photos = Sequence[np.ndarray[Any, Any]]


class Score(Protocol):
    """Judges what a group does to one photo.

    Attributes:
        judges_ends: whether scores of stem and head compare with those of blocks.
    """

    judges_ends: ClassVar[bool]

    def span(self, group: Group, nodes: Sequence[fx.Node]) -> int:
        """Number of operators of the graph up to the last one that matters."""
        ...

    def harm(self, group: Group, exact: Values, outputs: Values) -> float:
        """The score on one photo.

        Args:
            group: the group.
            exact: all tensors of the float network.
            outputs: results of all products, and the logits, as they are with the group quantized.
        """
        ...


@dataclass(frozen=True)
class Nuclear:
    """Nuclear norm of a group's results times their squared error.

    The nuclear norm stands for how much of a result matters: maps of low rank are less sensitive.
    Results of blocks are all added to the same stream, so that their errors compare; those of stem
    and head do not. Source: Liu et al. (NeurIPS 2021), section 3.3, but attention is judged by its
    output like an MLP, not by its logits, whose scores are a thousand times as large.
    """

    judges_ends: ClassVar[bool] = False

    def span(self, group: Group, nodes: Sequence[fx.Node]) -> int:
        """See `Score`."""
        return max(map(nodes.index, group.results)) + 1

    def harm(self, group: Group, exact: Values, outputs: Values) -> float:
        """See `Score`."""
        return sum(
            nuclear_norm(_matrices(node, exact[node]))
            * float((outputs[node] - exact[node]).square().sum())
            for node in group.results
        )


@dataclass(frozen=True)
class Sqnr:
    """Power of the noise in the logits relative to theirs, that is 10^(-SQNR / 10)."""

    judges_ends: ClassVar[bool] = True

    def span(self, group: Group, nodes: Sequence[fx.Node]) -> int:
        """See `Score`."""
        return len(nodes)

    def harm(self, group: Group, exact: Values, outputs: Values) -> float:
        """See `Score`."""
        (logits,) = (n for n in outputs if any(r.op == "output" for r in walk.consumers(n)))
        noise = (outputs[logits] - exact[logits]).square().sum()
        return float(noise / exact[logits].square().sum())


SCORES: dict[str, Score] = {"nuclear": Nuclear(), "sqnr": Sqnr()}


def score_groups(
    graph: fx.GraphModule,
    recipe: Recipe,
    groups: Sequence[Group],
    widths: Sequence[int],
    photos: Photos,
    score: Score,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[float]]:
    """Scores of every group at every width, mean over photos.

    Args:
        graph: canonical graph.
        recipe: formats and observers.
        groups: groups of products.
        widths: bits.
        photos: uint8 `[H, W, 3]`.
        score: a value of `SCORES`.
        progress: called with the number of photos done, counted for every width, and their total.
    """
    nodes = [n for n in graph.graph.nodes if n.op in ("placeholder", "call_function")]
    totals = [[0.0] * len(widths) for _ in groups]
    for column, width in enumerate(widths):
        setting = _Setting.of(graph, recipe, groups, width, photos)
        for row, photo in enumerate(photos):
            with torch.no_grad():
                exact = setting.float_values(nodes, as_input(photo, graph))
                for total, group in zip(totals, groups, strict=True):
                    span = nodes[_start(group, nodes) : score.span(group, nodes)]
                    outputs = setting.outputs(group, span, exact)
                    total[column] += score.harm(group, exact, outputs) / len(photos)
            progress(column * len(photos) + row + 1, len(widths) * len(photos))
    return totals


@dataclass(frozen=True)
class _Setting:
    """A graph with the quantizers that it has when all groups have the same bits."""

    graph: fx.GraphModule
    plan: Plan
    activations: dict[str, Quantizer]
    weights: dict[str, Tensor]

    @classmethod
    def of(
        cls,
        graph: fx.GraphModule,
        recipe: Recipe,
        groups: Sequence[Group],
        width: int,
        photos: Photos,
    ) -> "_Setting":
        bits = {product.name: width for group in groups for product in group.products}
        plan = make_plan(graph.graph, recipe, bits)
        few = recipe.model_copy(update={"calibration_images": len(photos)})
        activations = dict(calibrate(graph, photos, few, plan).tensors)
        weights = initial_weights(graph, plan, recipe, activations)
        restored = {name: weight.dequantized() for name, weight in weights.items()}
        return cls(graph, plan, activations, restored | restored_operands(graph))

    def float_values(self, nodes: Sequence[fx.Node], image: Tensor) -> Values:
        return Student(self.graph, self.plan, {}, {}, {}).run(nodes, {nodes[0]: image})

    def outputs(self, group: Group, span: Sequence[fx.Node], exact: Values) -> Values:
        """Results of the products in a span of operators with only the group quantized."""
        keys = {
            self.plan.key_of(product, index)
            for product in group.products
            for index, tensor in enumerate(product_operands(product))
            if not walk.is_constant(walk.source(tensor))
        }
        student = Student(
            self.graph,
            self.plan,
            {key: self.activations[key].fake for key in keys if key in self.activations},
            {p.name: self.weights[p.name] for p in group.products if p.name in self.weights},
            {},
        )
        found: Values = {}
        student.run(span, exact, lambda node, _, result: found.update({node: result}))
        return found


def _start(group: Group, nodes: Sequence[fx.Node]) -> int:
    """Position of the first operator whose result the group's quantizers change."""
    tensors = [t for product in group.products for t in product_operands(product)]
    sources = [s for s in map(walk.source, tensors) if not walk.is_constant(s)]
    return min(map(nodes.index, sources))


def nuclear_norm(matrices: Tensor) -> float:
    """Sum of the singular values of matrices `[..., M, N]`."""
    return float(torch.linalg.svdvals(matrices).sum())


def _matrices(node: fx.Node, result: Tensor) -> Tensor:
    """A result as matrices: positions by channels, or a map per head."""
    return result.flatten(2) if node.target is walk.CONV else result
