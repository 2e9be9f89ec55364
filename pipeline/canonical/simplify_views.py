"""Chains of views shrink to the shortest equal chain."""

from pipeline.canonical.graph import (
    PERMUTE,
    RESHAPE,
    GraphModule,
    Node,
    call,
    calls,
    is_call,
    replace,
    shape,
)


def simplify_views(gm: GraphModule) -> None:
    """Merges neighbouring reshapes and permutes and drops those that change nothing."""
    while any([_simplify(gm, node) for node in calls(gm, RESHAPE, PERMUTE)]):
        pass


def _simplify(gm: GraphModule, node: Node) -> bool:
    """Applies the first rule that fits; returns whether one did."""
    source = node.args[0]
    assert isinstance(source, Node)
    if shape(source) == shape(node) and (node.target is RESHAPE or _moves_only_ones(node)):
        replace(gm, node, source)
    elif node.target is PERMUTE and _moves_only_ones(node):
        replace(gm, node, call(gm, node, RESHAPE, source, list(shape(node))))
    elif node.target is RESHAPE and is_call(source, RESHAPE):
        replace(gm, node, call(gm, node, RESHAPE, source.args[0], list(shape(node))))
    elif node.target is PERMUTE and is_call(source, PERMUTE):
        inner, outer = source.args[1], node.args[1]
        dims = [inner[d] for d in outer]  # type: ignore[union-attr, index]
        replace(gm, node, call(gm, node, PERMUTE, source.args[0], dims))
    else:
        return False
    return True


def _moves_only_ones(node: Node) -> bool:
    """Whether a permute keeps the order of all dimensions of size above 1."""
    assert isinstance(node.args[0], Node)
    sizes = shape(node.args[0])
    moved = [d for d in node.args[1] if sizes[d] > 1]  # type: ignore[union-attr, index]
    return moved == sorted(moved)  # type: ignore[type-var]
