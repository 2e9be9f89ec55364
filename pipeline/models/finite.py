"""Where a network stops computing with numbers."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn


def first_overflow(module: nn.Module, images: Tensor) -> str | None:
    """Name of the first layer whose output holds NaN or infinity; None if there is none.

    It is "the network" where that happens between the layers.

    Args:
        module: a network.
        images: what it takes.
    """
    found: list[str] = []

    def look_at(name: str) -> Callable[..., None]:
        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(name or "the network")

        return look

    with ExitStack() as hooks, torch.no_grad():
        for name, child in module.named_modules():
            hooks.enter_context(child.register_forward_hook(look_at(name)))
        module(images)
    return found[0] if found else None
