"""Float operators that ATen lacks, in the torch namespace `pocketvit`."""

import torch
from torch import Tensor


@torch.library.custom_op("pocketvit::dynamic_relu", mutates_args=())
def dynamic_relu(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """`max(2 first x, (2 second - 1) x)`: dynamic ReLU (arXiv 2003.10027) by two gates.

    Args:
        x: float32, any shape.
        first: broadcasts against x; values in [0, 1].
        second: likewise.
    """
    return torch.maximum(2 * first * x, (2 * second - 1) * x)


@dynamic_relu.register_fake
def _(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return torch.empty_like(x)


DYNAMIC_RELU = torch.ops.pocketvit.dynamic_relu.default
