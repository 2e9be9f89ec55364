"""In-place operators become their functional twins."""

import torch

from pipeline.canonical.graph import GraphModule, Node, calls, path
from pipeline.errors import UserError


def make_functional(gm: GraphModule) -> None:
    """Replaces `relu_`, `add_` and the like; later readers of the changed tensor read the result.

    Raises:
        UserError: an in-place operator without a functional twin, or one on a view of a tensor
            that something else reads.
    """
    order = {node: index for index, node in enumerate(gm.graph.nodes)}
    for node in calls(gm):
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.is_mutable:
            continue
        twin = _twin(node)
        changed = node.args[0]
        if twin is None or not isinstance(changed, Node) or _may_alias(changed):
            raise UserError(
                f"Operator {node.target} at module path '{path(node)}' changes a tensor in place "
                "in a way that cannot be followed; use inplace=False there."
            )
        later = [user for user in changed.users if order[user] > order[node]]
        for user in later:
            user.replace_input_with(changed, node)
        node.target = twin


def _twin(node: Node) -> torch._ops.OpOverload | None:
    name, _, overload = str(node.target).removeprefix("aten.").partition(".")
    packet = getattr(torch.ops.aten, name.rstrip("_"), None)
    found = getattr(packet, overload, None)
    return found if isinstance(found, torch._ops.OpOverload) else None


def _may_alias(node: Node) -> bool:
    """Whether the tensor shares memory with another one that is still read."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return node.op != "call_function"
    is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
    return is_view and any(len(source.users) > 1 for source in node.all_input_nodes)
