"""Constants that broadcast: bringing them to their smallest shape and through views."""

import torch
from torch import Tensor

from pipeline.canonical.graph import Node, evaluate, shape


def compress(value: Tensor) -> Tensor:
    """Shrinks every dimension along which all entries are equal to size 1."""
    for dim in range(value.dim()):
        first = value.narrow(dim, 0, 1)
        if value.stride(dim) == 0 or torch.equal(first.expand_as(value), value):
            value = first
    return value


def along(value: Tensor, dim: int) -> Tensor | None:
    """The constant as a vector over one dimension, or None if it varies along another.

    Args:
        value: a constant of the full shape of the tensor that it belongs to.
        dim: the dimension, may be negative.
    """
    small = compress(value)
    others = [size for d, size in enumerate(small.shape) if d != dim % value.dim()]
    if any(size > 1 for size in others):
        return None
    return small.reshape(-1).expand(value.shape[dim]).clone()


def vector(values: Tensor, rank: int, dim: int) -> Tensor:
    """A 1-D tensor laid along one dimension of a tensor of this rank: `[1, .., C, .., 1]`."""
    sizes = [1] * rank
    sizes[dim] = -1
    return values.reshape(sizes)


def through(view: Node, value: Tensor) -> Tensor:
    """What a view makes of a constant that was added to or multiplied with its input.

    Args:
        view: any node that only moves or drops elements.
        value: constant of the full shape of the view's input.
    """
    result: Tensor = evaluate(view, lambda _: value)
    return result


def back_through(view: Node, value: Tensor) -> Tensor:
    """The inverse of `through` for views that keep every element.

    Args:
        view: a reshape, permute or roll.
        value: constant of the full shape of the view's output.
    """
    (source,) = view.all_input_nodes
    count = value.numel()
    origin = through(view, torch.arange(count).reshape(shape(source)))
    result = torch.empty(count, dtype=value.dtype)
    result[origin.reshape(-1)] = value.reshape(-1)
    return result.reshape(shape(source))
