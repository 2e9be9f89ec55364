"""Proof that a graph is canonical, and that it still computes the model."""

from collections.abc import Callable

import torch

from pipeline.canonical.graph import (
    ADD,
    CAT,
    CONV,
    GROUP_NORM,
    LAYER_NORM,
    LINEAR,
    MATMUL,
    MEAN,
    MUL,
    SOFTMAX,
    VIEWS,
    GraphModule,
    Node,
    Target,
    aten,
    calls,
    path,
)
from pipeline.errors import UserError
from pipeline.models import LoadedModel
from pipeline.models.finite import first_overflow
from pipeline.operators import DYNAMIC_RELU

TOLERANCE = 1e-4
"""Largest admitted difference of a logit, relative to the largest logit."""


def _always(_: Node) -> bool:
    return True


def _without_affine(node: Node) -> bool:
    return node.args[2] is None and node.args[3] is None


CANONICAL: dict[Target, Callable[[Node], bool]] = {
    **dict.fromkeys(VIEWS | {CONV, LINEAR, MATMUL, ADD, MUL, MEAN, CAT}, _always),
    aten.relu.default: _always,
    aten.hardtanh.default: lambda node: bool(node.args[1:] == (0.0, 6.0)),
    aten.silu.default: _always,
    aten.gelu.default: lambda node: node.kwargs.get("approximate", "none") == "none",
    aten.hardswish.default: _always,
    aten.hardsigmoid.default: _always,
    aten.sigmoid.default: _always,
    DYNAMIC_RELU: _always,
    LAYER_NORM: lambda node: _without_affine(node) and len(node.args[1]) == 1,  # type: ignore[arg-type]
    GROUP_NORM: lambda node: _without_affine(node) and bool(node.args[1] == 1),
    SOFTMAX: lambda node: len(node.args) == 2 or node.args[2] is None,
    aten.avg_pool2d.default: lambda node: bool(node.args[4:] == (False, False, None)),
    aten.upsample_bilinear2d.vec: lambda node: node.args[1] is not None and node.args[3] is None,
    aten.constant_pad_nd.default: _always,
}
"""Every operator of the canonical graph and what its arguments must satisfy."""


def check_operators(gm: GraphModule) -> None:
    """Checks that only canonical operators are left.

    Raises:
        UserError: names the first other one and its module.
    """
    for node in calls(gm):
        admitted = CANONICAL.get(node.target)  # type: ignore[arg-type]
        where = f"Operator {node.target} at module path '{path(node)}'"
        if admitted is None:
            raise UserError(f"{where} is not supported; choose a model without it.")
        if not admitted(node):
            arguments = ", ".join(str(a) for a in (*node.args[1:], *node.kwargs.items()))
            raise UserError(
                f"{where} is not supported with arguments ({arguments}); choose a model without it."
            )


def relative_difference(gm: GraphModule, loaded: LoadedModel, images: int = 2) -> float:
    """Largest difference of the logits on random images, relative to the largest logit.

    Args:
        gm: the graph, on pixels 0..255 in `[1, S, S, 3]`.
        loaded: the model, on preprocessed images.
        images: how many.

    Raises:
        UserError: the model's own logits are NaN or infinite.
    """
    settings = loaded.preprocessing
    side = settings.input_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, side, side, 3), generator=generator).float()
    # Flat patches beside noise: noise alone averages out in the first layers.
    pixels[:, : side // 2] = pixels[:, :1, :1]
    mean = torch.tensor(settings.mean).reshape(3, 1, 1)
    std = torch.tensor(settings.std).reshape(3, 1, 1)
    prepared = (pixels.permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        expected = loaded.module(prepared)
        actual = torch.cat([gm(image[None]) for image in pixels])
    if not torch.isfinite(expected).all():
        raise UserError(
            f"The float model produces NaN or infinity on random images, first at "
            f"{first_overflow(loaded.module, prepared)}; check its weights and preprocessing."
        )
    return float((actual - expected).abs().max() / expected.abs().max())


def check_equal(gm: GraphModule, loaded: LoadedModel) -> None:
    """Checks that the graph gives the model's logits.

    Raises:
        UserError: they differ by more than `TOLERANCE`, or are no numbers.
    """
    difference = relative_difference(gm, loaded)
    if not difference <= TOLERANCE:
        raise UserError(
            f"The canonical graph of {loaded.name} differs from the model by {difference:.1e} of "
            f"the largest logit (admitted: {TOLERANCE:.0e}); report this model as unsupported."
        )
