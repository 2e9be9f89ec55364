"""Small tools on fx graphs that every rewrite uses: constants, new nodes, views.

A graph under rewriting holds call_function nodes of `torch.ops.aten`, one placeholder, and
`get_attr` nodes that name buffers of the module's root. Every node has `meta["val"]`, a tensor on
the meta device with its shape, and `meta["module_path"]`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

Node = fx.Node
GraphModule = fx.GraphModule
Target = Callable[..., Any]

aten = torch.ops.aten

ADD, MUL = aten.add.Tensor, aten.mul.Tensor
CONV, LINEAR, MATMUL = aten.conv2d.default, aten.linear.default, aten.matmul.default
MEAN, SOFTMAX, CAT = aten.mean.dim, aten.softmax.int, aten.cat.default
LAYER_NORM, GROUP_NORM = aten.layer_norm.default, aten.group_norm.default
RESHAPE, PERMUTE = aten.reshape.default, aten.permute.default
SLICE, SELECT, ROLL = aten.slice.Tensor, aten.select.int, aten.roll.default
REPEAT = aten.repeat.default

PROJECTIONS = frozenset({CONV, LINEAR})
"""Operators whose weights can take in constants."""

BIJECTIVE_VIEWS = frozenset({RESHAPE, PERMUTE, ROLL})
"""Operators that only move elements."""

VIEWS = BIJECTIVE_VIEWS | {SLICE, SELECT, REPEAT}
"""Operators that move, drop or repeat elements."""


def calls(gm: GraphModule, *targets: Target) -> Iterator[Node]:
    """The call nodes of these operators in order; all call nodes if none is named.

    The graph may be changed while iterating: erased nodes are skipped, new ones that stand before
    the current one are not visited.
    """
    for node in gm.graph.nodes:
        if node.op == "call_function" and (not targets or node.target in targets):
            yield node


def is_call(node: object, *targets: Target) -> bool:
    """Whether `node` is a call of one of these operators."""
    return isinstance(node, Node) and node.op == "call_function" and node.target in targets


def shape(node: Node) -> tuple[int, ...]:
    """The static shape of a node's value."""
    return tuple(int(size) for size in node.meta["val"].shape)


def path(node: Node) -> str:
    """The PyTorch module that a node comes from, e.g. `stages.2.1.transformer.0.attn.qkv`."""
    return str(node.meta.get("module_path", ""))


def constant(gm: GraphModule, node: object) -> Tensor | None:
    """The value of a constant node; None for anything else."""
    if isinstance(node, Node) and node.op == "get_attr":
        value: Tensor = getattr(gm, str(node.target))
        return value
    return None


def weights(gm: GraphModule, node: Node) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias (or None) of a convolution or linear layer; None if they are not constant."""
    weight = constant(gm, node.args[1])
    bias = constant(gm, node.args[2])
    if weight is None or (bias is None and node.args[2] is not None):
        return None
    return weight, bias


def new_constant(gm: GraphModule, before: Node, value: Tensor, hint: str = "const") -> Node:
    """Stores a tensor as a buffer and names it by a node in front of `before`.

    Floating-point values are stored as float32.
    """
    value = (value.float() if value.is_floating_point() else value).detach().contiguous()
    base = f"{path(before)}_{hint}".lstrip("_").replace(".", "_").replace("[", "_").replace("]", "")
    name, count = base, 0
    while hasattr(gm, name):
        count += 1
        name = f"{base}_{count}"
    gm.register_buffer(name, value)
    with gm.graph.inserting_before(before):
        node = gm.graph.get_attr(name)
    node.meta = {"val": value.to("meta"), "module_path": path(before)}
    return node


def call(
    gm: GraphModule, before: Node, target: Target, *args: Any, module_path: str | None = None
) -> Node:
    """Inserts a call in front of `before`; tensors among the arguments become constants.

    Args:
        gm: the graph.
        before: the new node's successor; it also lends its module path.
        target: an aten operator.
        args: nodes, tensors and plain values.
        module_path: another path.
    """
    made = tuple(new_constant(gm, before, a) if isinstance(a, Tensor) else a for a in args)
    with gm.graph.inserting_before(before):
        node = gm.graph.call_function(target, made)
    node.meta = {"module_path": path(before) if module_path is None else module_path}
    refresh(node)
    return node


def evaluate(node: Node, replace: Callable[[Node], Tensor]) -> Any:
    """Runs a node's operator with each input node replaced by a tensor."""
    args = fx.map_arg(node.args, replace)
    kwargs = fx.map_arg(node.kwargs, replace)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def refresh(node: Node) -> None:
    """Recomputes a node's shape after its arguments changed."""
    node.meta["val"] = evaluate(node, lambda source: source.meta["val"])


def set_weights(gm: GraphModule, node: Node, weight: Tensor, bias: Tensor | None) -> None:
    """Gives a convolution or linear layer new constants."""
    node.update_arg(1, new_constant(gm, node, weight, "weight"))
    node.update_arg(2, None if bias is None else new_constant(gm, node, bias, "bias"))
    refresh(node)


def replace(gm: GraphModule, old: Node, new: Node) -> None:
    """Lets every user of `old` read `new`, and removes `old` and what only it needed."""
    old.replace_all_uses_with(new)
    erase(gm, old)


def erase(gm: GraphModule, node: Node) -> None:
    """Removes a node without users and, recursively, the inputs that lose their last user."""
    inputs = node.all_input_nodes
    gm.graph.erase_node(node)
    for source in inputs:
        if not source.users and source.op != "placeholder":
            erase(gm, source)
