"""Grouped convolutions in the forms that have fast kernels: dense, and one output per channel."""

from typing import Any

import torch
from torch import Tensor

from pipeline.canonical.graph import (
    CONV,
    PERMUTE,
    REPEAT,
    RESHAPE,
    GraphModule,
    call,
    calls,
    replace,
    shape,
    weights,
)


def ungroup_pointwise(gm: GraphModule) -> None:
    """A grouped 1x1 convolution becomes a dense one, with zeros between the groups.

    The rows of a group are too short for a matrix product to gain by leaving out the zeros.
    """
    for node in calls(gm, CONV):
        source: Any = node.args[0]
        found, groups = weights(gm, node), node.args[6]
        if found is None or groups in (1, shape(source)[1]):
            continue
        weight, bias = found
        if weight.shape[2:] == (1, 1):
            assert isinstance(groups, int)
            blocks = weight.reshape(groups, -1, weight.shape[1])
            dense = torch.block_diag(*blocks)[..., None, None]  # type: ignore[no-untyped-call]
            replace(gm, node, call(gm, node, CONV, source, dense, bias, *node.args[3:6], 1))


def repeat_depthwise(gm: GraphModule) -> None:
    """Several outputs per channel: a depthwise convolution of the repeated map.

    Output j of channel c moves from place `c * factor + j` to `j * channels + c`, so that
    neighbouring outputs read neighbouring channels; a shuffle behind it undoes that.
    """
    for node in calls(gm, CONV):
        source: Any = node.args[0]
        found, groups = weights(gm, node), shape(source)[1]
        outputs, *size = shape(node)[1:]
        if found is None or node.args[6] != groups or groups in (1, outputs):
            continue
        factor = outputs // groups

        def ordered(value: Tensor, channels: int = groups, factor: int = factor) -> Tensor:
            split = value.reshape(channels, factor, *value.shape[1:])
            return split.transpose(0, 1).reshape(value.shape)

        weight, bias = (None if value is None else ordered(value) for value in found)
        repeated = call(gm, node, REPEAT, source, [1, factor, 1, 1])
        geometry = (*node.args[3:6], outputs)
        new = call(gm, node, CONV, repeated, weight, bias, *geometry)
        turned = call(gm, node, RESHAPE, new, [1, factor, groups, *size])
        turned = call(gm, node, PERMUTE, turned, [0, 2, 1, 3, 4])
        replace(gm, node, call(gm, node, RESHAPE, turned, list(shape(node))))
