"""What becomes of the logits when one layer alone is quantized, or left in float."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import fx

from pipeline.quant.evaluate import agreement, sqnr_db, top1
from pipeline.quant.simulate import simulate
from pipeline.sensitivity.layers import Layer
from pipeline.sensitivity.switch import with_layers


@dataclass(frozen=True)
class Effect:
    """Logits of a network against those in float.

    Attributes:
        sqnr_db: infinite where they are equal.
        agreement: share of photos with the same top class.
        top1: share of photos that are right.
    """

    sqnr_db: float
    agreement: float
    top1: float


@dataclass(frozen=True)
class Effects:
    """What a layer does to the logits.

    Attributes:
        alone: when nothing else is quantized.
        spared: when everything else is quantized.
    """

    alone: Effect
    spared: Effect


@dataclass(frozen=True)
class Evaluation:
    """Photos, and what is right of them.

    Attributes:
        images: uint8 `[H, W, 3]` each, already resized.
        labels: their classes, `[photos]`.
        logits: of the float model, `[photos, classes]`.
    """

    images: Sequence[np.ndarray[Any, Any]]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[Any]

    def effect(self, graph: fx.GraphModule) -> Effect:
        """What a graph makes of the photos."""
        found = simulate(graph, self.images)
        return Effect(
            sqnr_db(self.logits, found), agreement(self.logits, found), top1(found, self.labels)
        )


def layer_effects(
    graph: fx.GraphModule,
    float_graph: fx.GraphModule,
    layers: Sequence[Layer],
    evaluation: Evaluation,
    progress: Callable[[int], None],
) -> Iterator[Effects]:
    """The effects of every layer, two networks for each.

    Args:
        graph: QDQ graph.
        float_graph: the float graph that it was made from.
        layers: all of its layers.
        evaluation: photos to run.
        progress: called after every network with the number done.

    Yields:
        The effects, in the order of the layers.
    """
    every = frozenset(layer.name for layer in layers)
    for index, layer in enumerate(layers):
        alone = evaluation.effect(with_layers(graph, float_graph, {layer.name}))
        progress(2 * index + 1)
        spared = evaluation.effect(with_layers(graph, float_graph, every - {layer.name}))
        progress(2 * index + 2)
        yield Effects(alone, spared)
