"""Bits that the weights of products take."""

from collections.abc import Iterable

import torch
from torch import fx

from pipeline.quant import walk
from pipeline.quant.allocate.settings import mean_bits

_SCALE_BITS = 32


def weight_count(products: Iterable[fx.Node]) -> int:
    """Number of weights."""
    return sum(_shape(p).numel() for p in products if p.target in walk.WEIGHTED)


def averaged_bits(products: Iterable[fx.Node], width: int) -> int:
    """Bits of all weights for an average, where activations count like the weights they meet."""
    return weight_count(products) * mean_bits(width)


def stored_bits(products: Iterable[fx.Node], width: int, per_channel: bool) -> int:
    """Bits of all weights in a library, scales included.

    Codes of 2 to 6 bits are stored packed, others, and those of grouped convolutions, in bytes.

    Args:
        products: products with the same bits.
        width: their bits.
        per_channel: whether every output channel has a scale.
    """
    total = 0
    for product in products:
        if product.target in walk.WEIGHTED:
            shape = _shape(product)
            packed = width <= 6 and not _is_grouped(product)
            total += shape.numel() * (width if packed else 8)
            total += _SCALE_BITS * (shape[0] if per_channel else 1)
    return total


def _shape(product: fx.Node) -> torch.Size:
    weight = product.args[1]
    assert isinstance(weight, fx.Node)
    return weight.meta["val"].shape


def _is_grouped(product: fx.Node) -> bool:
    if product.target is not walk.CONV:
        return False
    return bool(walk.input_of(product).meta["val"].shape[1] != _shape(product)[1])
