"""SQNR of every layer's output, and the ranges of its activations, in one pass."""

import math
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pipeline.quant.images import as_input
from pipeline.sensitivity.layers import find_layers, is_activation, producer
from pipeline.sensitivity.ranges import RangeStatistics, TensorRange


@dataclass(frozen=True)
class LocalFigures:
    """What one pass tells.

    Attributes:
        sqnr_db: by the layer's name, of its output in the quantized network against float;
            infinite where they are equal.
        ranges: of all stored tensors, in the order of the graph.
    """

    sqnr_db: Mapping[str, float]
    ranges: tuple[TensorRange, ...]


def local_figures(
    graph: fx.GraphModule,
    float_graph: fx.GraphModule,
    images: Iterable[np.ndarray[Any, Any]],
    progress: Callable[[int], None] | None = None,
) -> LocalFigures:
    """Run photos through both graphs side by side, one photo in memory at a time.

    Args:
        graph: QDQ graph.
        float_graph: the float graph that it was made from.
        images: uint8 `[H, W, 3]`, already resized.
        progress: called after every photo with the number done.
    """
    layers = find_layers(graph)
    pairs = [node for node in graph.graph.nodes if is_activation(node)]
    energies = {layer.name: np.zeros(2) for layer in layers}
    statistics = {pair.name: RangeStatistics() for pair in pairs}
    wanted = {layer.producer for layer in layers} | {producer(pair).name for pair in pairs}
    exact = _Recorder(float_graph, wanted)
    noisy = _Recorder(graph, {layer.name for layer in layers})
    with torch.no_grad():
        for done, image in enumerate(images, start=1):
            floats = exact.values(as_input(image, float_graph))
            found = noisy.values(as_input(image, graph))
            for layer in layers:
                energies[layer.name] += _energies(floats[layer.producer], found[layer.name])
            for pair in pairs:
                statistics[pair.name].update(floats[producer(pair).name])
            if progress is not None:
                progress(done)
    return LocalFigures(
        {name: _decibels(*pair) for name, pair in energies.items()},
        tuple(statistics[pair.name].finish(graph, pair) for pair in pairs),
    )


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps the values of some nodes."""

    def __init__(self, graph: fx.GraphModule, wanted: AbstractSet[str]) -> None:
        super().__init__(graph)
        self._wanted = wanted
        self._kept: dict[str, Tensor] = {}

    def values(self, image: Tensor) -> dict[str, Tensor]:
        """Values by name for one image, float32 `[1, H, W, 3]`."""
        self._kept = {}
        self.run(image)
        return self._kept

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._wanted:
            self._kept[n.name] = value
        return value


def _energies(exact: Tensor, noisy: Tensor) -> np.ndarray[Any, Any]:
    reference = exact.double()
    return np.array([reference.square().sum(), (reference - noisy.double()).square().sum()])


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
