"""Run a graph over photos in torch; for a QDQ graph this is the simulation of the integers."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.fx.experimental.const_fold import split_const_subgraphs

from pipeline.quant.images import as_input


def simulate(
    graph: fx.GraphModule,
    images: Iterable[np.ndarray[Any, Any]],
    progress: Callable[[int], None] | None = None,
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits of photos, one at a time.

    Args:
        graph: canonical float graph or QDQ graph.
        images: uint8 `[H, W, 3]`, already resized.
        progress: called after every photo with the number done.

    Returns:
        float32 `[N, classes]`.

    Raises:
        UserError: a photo has another shape than the graph takes.
    """
    graph = _with_decoded_weights(graph)
    rows = []
    with torch.no_grad():
        for done, image in enumerate(images, start=1):
            rows.append(graph(as_input(image, graph))[0].numpy())
            if progress is not None:
                progress(done)
    return np.stack(rows)


def _with_decoded_weights(graph: fx.GraphModule) -> fx.GraphModule:
    """The same graph with all that depends on constants alone computed once, for all photos."""
    with warnings.catch_warnings():  # of a constant that it is about to register
        warnings.simplefilter("ignore", UserWarning)
        folded: fx.GraphModule = split_const_subgraphs(graph)
    return folded
