"""Factors 1, 2, 4 or 8 per channel around an 8-bit residual stream, exact in the float network.

`x * 2^-a` is stored in 8 bits, and `* 2^a` restores it: channels of small range keep up to three
bits more. Source: power-of-two factor of FQ-ViT (IJCAI 2022), section 4.1.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.finite import FiniteInterpreter
from pipeline.quant.images import as_input
from pipeline.quant.plan import Plan
from pipeline.quant.quantizers import uniform
from pipeline.quant.quantizers.uniform import Uniform
from pipeline.quant.roles import Role

LARGEST = 3
"""Largest exponent, as published."""

Exponents = Mapping[str, tuple[int, ...]]
"""Tensor -> exponent of every channel."""


def choose_exponents(
    graph: fx.GraphModule, plan: Plan, images: Sequence[np.ndarray[Any, Any]]
) -> dict[str, tuple[int, ...]]:
    """Exponents with the least squared error of every channel, for what normalizations read.

    Args:
        graph: canonical graph.
        plan: its plan.
        images: uint8 `[H, W, 3]` calibration photos.
    """
    axes = {node: axis for node in graph.graph.nodes if (axis := _axis(node, plan)) is not None}
    low = dict.fromkeys(axes, 0.0)
    high = dict.fromkeys(axes, 0.0)

    def extremes(node: fx.Node, rows: Tensor) -> None:
        low[node] = min(low[node], float(rows.min()))
        high[node] = max(high[node], float(rows.max()))

    errors: dict[fx.Node, Tensor] = {}

    def compare(node: fx.Node, rows: Tensor) -> None:
        form = plan.formats[node.name]
        assert isinstance(form, Uniform)
        error = _errors(rows, low[node], high[node], form)
        errors[node] = errors[node] + error if node in errors else error

    for update in (extremes, compare):
        _visit(graph, images, axes, update)
    return {node.name: tuple(errors[node].argmin(dim=0).tolist()) for node in axes}


def _axis(node: fx.Node, plan: Plan) -> int | None:
    """Axis of the channels, for 8-bit tensors of the residual stream that a norm reads."""
    form = plan.formats.get(node.name)
    if plan.roles.tensors.get(node.name) is not Role.RESIDUAL or not isinstance(form, Uniform):
        return None
    norms = [r for r in node.users if r.target in walk.NORMS]
    if form.dtype != "int8" or not norms:
        return None
    return 1 if norms[0].target is torch.ops.aten.group_norm.default else -1


def _visit(
    graph: fx.GraphModule,
    images: Iterable[np.ndarray[Any, Any]],
    axes: Mapping[fx.Node, int],
    update: Callable[[fx.Node, Tensor], None],
) -> None:
    """Call `update` with the channels `[C, n]` of every tensor and photo."""

    class Observe(FiniteInterpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in axes:
                update(n, value.movedim(axes[n], 0).flatten(1))
            return value

    observe = Observe(graph)
    with torch.no_grad():
        for image in images if axes else ():
            observe.run(as_input(image, graph))


def _errors(rows: Tensor, low: float, high: float, target: Uniform) -> Tensor:
    """Squared errors of channels `[C, n]` under every exponent, `[E, C]`."""
    width = max(high - low, 2.0**-20) / (target.qmax - target.qmin)
    zero = torch.tensor(target.qmin - low / width).round().clamp(target.qmin, target.qmax)
    exponents = torch.arange(LARGEST + 1.0).reshape(-1, 1, 1)
    if target.symmetric:
        width, zero = max(-low, high, 2.0**-20) / target.qmax, torch.zeros(())
    scales = width * torch.exp2(exponents - LARGEST)
    return (uniform.fake(rows, scales, zero, target) - rows).square().sum(dim=-1)


def scale_stream(graph: fx.GraphModule, exponents: Exponents) -> fx.GraphModule:
    """A copy of the graph with both factors around these tensors; it computes the same.

    Raises:
        KeyError: there is no such tensor.
    """
    result = copy.deepcopy(graph)
    nodes = {node.name: node for node in result.graph.nodes}
    for name, found in exponents.items():
        node = nodes[name]
        users = list(node.users)
        axis = 1 if any(u.target is torch.ops.aten.group_norm.default for u in users) else -1
        shape = [1] * len(node.meta["val"].shape)
        shape[axis] = -1
        factor = torch.exp2(torch.tensor(found, dtype=torch.float32)).reshape(shape)
        stored = _times(result, node, 1 / factor, "stored")
        restored = _times(result, stored, factor, "restored")
        for user in users:
            user.replace_input_with(node, restored)
    result.recompile()
    return result


def _times(graph: fx.GraphModule, source: fx.Node, factor: Tensor, part: str) -> fx.Node:
    name = f"{source.name}_{part}_factor"
    graph.register_buffer(name, factor)
    with graph.graph.inserting_after(source):
        constant = graph.graph.get_attr(name)
    constant.meta = {"val": factor.to("meta")}
    with graph.graph.inserting_after(constant):
        node = graph.graph.call_function(walk.MUL, (source, constant))
    node.meta = {
        "module_path": source.meta.get("module_path", ""),
        "val": source.meta["val"],
        walk.STREAM_FACTOR: part,
    }
    return node
