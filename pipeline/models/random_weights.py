"""Weights that exercise every part of a network, for tests and dry runs without a checkpoint."""

import torch
from torch import nn

SPREAD = 0.2


def randomize_constants(module: nn.Module, generator: torch.Generator) -> None:
    """Adds noise to every tensor that its initialisation left constant, in place.

    A fresh network has batch statistics 0 and 1, affine factors 1, biases and position biases 0 and
    layer scales 1e-5: a rewrite that dropped one of them would go unnoticed. Noise of standard
    deviation 0.2 makes each of them count and keeps the activations in range.

    Args:
        module: any network; float parameters and buffers are changed.
        generator: source of the noise.
    """
    variances = {
        id(layer.running_var)
        for layer in module.modules()
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    }
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) in variances:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point() and tensor.numel() and tensor.min() == tensor.max():
                tensor.add_(SPREAD * torch.randn(tensor.shape, generator=generator))
