"""Objectives: how far the output of a product is from what it should be; smaller is better.

Outputs are `[C, I, ...]`: candidates, photos, the rest. Axes in `kept` are groups that are judged
on their own. A new objective is a function here and a line in `OBJECTIVES`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor, tuple[int, ...], Tensor | None], Tensor]
"""`(outputs, wanted, kept, importance)`: outputs `[C, I, ...]`, wanted and importance `[I, ...]`,
to losses `[C, *kept]`."""

_TINY = 1e-20


def mse(
    outputs: Tensor, wanted: Tensor, kept: tuple[int, ...], importance: Tensor | None
) -> Tensor:
    """Mean squared error, weighed by `importance` where it is given.

    With squared gradients as importance this is the second-order estimate of the loss of PTQ4ViT
    (ECCV 2022, section 3.3) and Q-HyViT (2023, section III-C), with the average perturbation
    Hessian that of APHQ-ViT (CVPR 2025, section 3.2).
    """
    error = (outputs - wanted).square_()
    if importance is not None:
        error *= importance
    return error.mean(dim=_others(outputs, kept))


def cosine(
    outputs: Tensor, wanted: Tensor, kept: tuple[int, ...], importance: Tensor | None
) -> Tensor:
    """One minus the cosine of the angle between both, mean over photos: EasyQuant (2020)."""
    del importance
    return _distance(outputs, wanted.unsqueeze(0), kept)


def pearson(
    outputs: Tensor, wanted: Tensor, kept: tuple[int, ...], importance: Tensor | None
) -> Tensor:
    """One minus Pearson's correlation, mean over photos: Liu et al. (NeurIPS 2021), section 3.2."""
    del importance
    dims = _others(outputs, (1, *kept))
    wanted = wanted.unsqueeze(0)
    centred = outputs - outputs.mean(dim=dims, keepdim=True)
    return _distance(centred, wanted - wanted.mean(dim=dims, keepdim=True), kept)


def ranking(outputs: Tensor, wanted: Tensor, margin: float = 0.2, pairs: int = 64) -> Tensor:
    """Hinge loss on pairs of attention logits whose order is lost, mean over pairs, `[C]`.

    Source: Liu et al. (NeurIPS 2021), section 3.2. Of all pairs of columns of a row, `pairs` fixed
    ones are taken.
    """
    random = torch.Generator().manual_seed(0)
    columns = wanted.shape[-1]
    i, j = (torch.randint(columns, (pairs,), generator=random) for _ in range(2))
    order = torch.sign(wanted[..., i] - wanted[..., j])
    gap = (outputs[..., i] - outputs[..., j]) * order
    return (margin - gap).clamp_(min=0).mean(dim=_others(outputs, ()))


OBJECTIVES: dict[str, Objective] = {"mse": mse, "cosine": cosine, "pearson": pearson}


def _others(outputs: Tensor, kept: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(d for d in range(1, outputs.dim()) if d not in kept)


def _distance(outputs: Tensor, wanted: Tensor, kept: tuple[int, ...]) -> Tensor:
    dims = _others(outputs, (1, *kept))
    product = (outputs * wanted).sum(dim=dims)
    lengths = outputs.square().sum(dim=dims) * wanted.square().sum(dim=dims)
    return (1 - product / lengths.clamp(min=_TINY).sqrt()).mean(dim=1)
