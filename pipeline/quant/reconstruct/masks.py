"""Random masks, made eight elements at a time: one draw for each would cost more than a product."""

import math

import torch
from torch import Tensor


def random_mask(like: Tensor, probability: float, random: torch.Generator | None = None) -> Tensor:
    """Ones with a probability, to the nearest 1/256, and zeros elsewhere; shaped like a tensor.

    Args:
        like: gives shape, type and device.
        probability: of a one.
        random: a generator of the CPU; torch's own unless given.
    """
    count, share = like.numel(), round(256 * probability)
    if share == 256:
        return torch.ones_like(like)
    draws = torch.empty(math.ceil(count / 8), dtype=torch.int64)
    draws.random_(-(2**63), None, generator=random)
    picked = draws.view(torch.uint8)[:count] < share
    return picked.to(like.device, like.dtype).reshape(like.shape)
