"""Photos as the input of a canonical graph."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pipeline.errors import UserError


def input_shape(graph: fx.GraphModule) -> tuple[int, ...]:
    """Shape `(1, H, W, 3)` of the graph's only placeholder."""
    (image,) = (n for n in graph.graph.nodes if n.op == "placeholder")
    return tuple(image.meta["val"].shape)


def as_input(image: np.ndarray[Any, Any], graph: fx.GraphModule) -> Tensor:
    """A uint8 `[H, W, 3]` photo as the float32 `[1, H, W, 3]` input of a graph.

    Raises:
        UserError: the photo has another shape or type.
    """
    expected = input_shape(graph)[1:]
    if image.dtype != np.uint8 or image.shape != expected:
        raise UserError(
            f"A photo is {image.dtype} of shape {list(image.shape)} where the model takes uint8 "
            f"of shape {list(expected)}; preprocess it with the model's own settings."
        )
    return torch.from_numpy(np.ascontiguousarray(image)).to(torch.float32).unsqueeze(0)
