"""Normalisations lose their constants: what is constant in them becomes a mul and an add."""

import torch
from torch import Tensor

from pipeline.canonical.broadcast import vector
from pipeline.canonical.graph import (
    ADD,
    GROUP_NORM,
    LAYER_NORM,
    MUL,
    GraphModule,
    Node,
    aten,
    call,
    calls,
    constant,
    replace,
    shape,
)


def split_batch_norm(gm: GraphModule) -> None:
    """Batch normalisation with fixed statistics: `x * s + t` per channel.

    `s = gamma / sqrt(var + eps)`, `t = beta - mean * s` (Jacob et al., arXiv 1712.05877, 3.2);
    later rewrites move both into neighbouring weights.
    """
    for node in calls(gm, aten.batch_norm.default):
        source, gamma, beta, mean, var, training, _, eps, *_ = node.args
        statistics = constant(gm, mean), constant(gm, var)
        if training or statistics[0] is None or statistics[1] is None:
            continue
        centre, spread = (value.double() for value in statistics if value is not None)
        scale = 1 / torch.sqrt(spread + float(eps))  # type: ignore[arg-type]
        if (factor := constant(gm, gamma)) is not None:
            scale = scale * factor.double()
        shift = -centre * scale
        if (offset := constant(gm, beta)) is not None:
            shift = shift + offset.double()
        rank = len(shape(node))
        _scale_and_shift(gm, node, source, vector(scale, rank, 1), vector(shift, rank, 1))  # type: ignore[arg-type]


def split_norm_affine(gm: GraphModule) -> None:
    """Layer and group normalisation: the affine part becomes `x * gamma + beta`."""
    for node in calls(gm, LAYER_NORM, GROUP_NORM):
        source, size, gamma, beta, eps = node.args
        factor, offset = constant(gm, gamma), constant(gm, beta)
        if factor is None and offset is None:
            continue
        assert callable(node.target)
        plain = call(gm, node, node.target, source, size, None, None, eps)
        rank = len(shape(node))
        if node.target is GROUP_NORM:
            factor, offset = (None if v is None else vector(v, rank, 1) for v in (factor, offset))
        _scale_and_shift(gm, node, plain, factor, offset)


def _scale_and_shift(
    gm: GraphModule, node: Node, source: Node, scale: Tensor | None, shift: Tensor | None
) -> None:
    result = source
    if scale is not None:
        result = call(gm, node, MUL, result, scale)
    if shift is not None:
        result = call(gm, node, ADD, result, shift)
    replace(gm, node, result)
