"""The average perturbation Hessian: how much the logits mind an error in a unit's outputs.

Source: APHQ-ViT (CVPR 2025), section 3.2. The published code differentiates numerically, with a
step near the resolution of float32; here the product of the Hessian with the vector of ones is
exact. At the clean point the Hessian of the divergence is `J^T (diag(p) - p p^T) J / tau^2`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.quant.stream import CHUNK, Values

TEMPERATURE = 20.0
"""Of the softmax whose divergence is watched, as published."""


def average_perturbation_hessian(
    rest: Callable[[Values], Values],
    outputs: Values,
    context: Values,
    device: torch.device | None = None,
) -> Values:
    """Weights of the squared errors of a unit's outputs, mean 1 over all of them.

    Args:
        rest: the rest of the network up to its logits, as a function of tensors of several photos.
        outputs: what the unit computes, `[I, ...]`.
        context: what else the rest reads, likewise.
        device: where it runs.

    Returns:
        For every output the mean over photos of the absolute product, without the photos' axis.
    """
    nodes = tuple(outputs)
    count = len(outputs[nodes[0]])
    sums = [torch.zeros_like(outputs[node][0]) for node in nodes]

    for start in range(0, count, CHUNK):
        here = slice(start, start + CHUNK)
        beside = {node: value[here].to(device) for node, value in context.items()}

        def run(*values: Tensor, beside: Values = beside) -> Tensor:
            (logits,) = rest(dict(zip(nodes, values, strict=True)) | beside).values()
            return logits

        some = tuple(outputs[node][here].to(device) for node in nodes)
        for total, product in zip(sums, _hessian_times_ones(run, some), strict=True):
            total += product.abs().sum(dim=0).cpu()
    mean = sum(float(total.sum()) for total in sums) / sum(total.numel() for total in sums)
    # A rest that does not depend on the outputs leaves nothing to weigh.
    return {
        node: total / mean if mean > 0 else torch.ones_like(total)
        for node, total in zip(nodes, sums, strict=True)
    }


def _hessian_times_ones(
    run: Callable[..., Tensor], values: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    ones = tuple(torch.ones_like(value) for value in values)
    logits, moved = torch.func.jvp(run, values, ones)[:2]
    p = torch.softmax(logits / TEMPERATURE, dim=-1)
    bent = p * moved
    bent = (bent - p * bent.sum(dim=-1, keepdim=True)) / TEMPERATURE**2
    back = torch.func.vjp(run, *values)[1]
    products: tuple[Tensor, ...] = back(bent)
    return products
