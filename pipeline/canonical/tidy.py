"""Last touches: unused nodes and buffers go, constants get readable names and full rank."""

from torch import fx

from pipeline.canonical.graph import (
    ADD,
    MUL,
    PROJECTIONS,
    GraphModule,
    Node,
    calls,
    constant,
    new_constant,
    shape,
)


def drop_unused(gm: GraphModule) -> None:
    """Removes nodes without users and buffers that no node names, and recompiles."""
    gm.graph.eliminate_dead_code()
    used = {str(node.target) for node in gm.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in gm.named_buffers() if name not in used]:
        delattr(gm, name)
    gm.graph.lint()
    gm.recompile()


def tidy(gm: GraphModule) -> None:
    """Gives every constant a buffer of its own, named after its module and its use.

    Constant operands of add and mul get the rank of the result: `[1, C, 1, 1]`, not `[C]`.
    """
    values = {node: constant(gm, node) for node in gm.graph.find_nodes(op="get_attr")}
    for node in values:
        if hasattr(gm, str(node.target)):
            delattr(gm, str(node.target))
    for node in calls(gm):

        def renamed(source: Node, user: Node = node) -> Node:
            value = values.get(source)
            if value is None:
                return source
            if user.target in (ADD, MUL):
                missing = len(shape(user)) - value.dim()
                value = value.reshape([1] * missing + list(value.shape))
            return new_constant(gm, user, value, _role(source, user))

        node.args = fx.map_arg(node.args, renamed)
    for node in values:
        gm.graph.erase_node(node)


def _role(source: Node, user: Node) -> str:
    if user.target in PROJECTIONS:
        return "weight" if source is user.args[1] else "bias"
    return "factor" if user.target is MUL else "offset" if user.target is ADD else "constant"
