"""Subgraphs of constants are computed once: position-bias tables, class tokens, masks."""

from typing import Any

import torch
from torch import Tensor

from pipeline.canonical.graph import (
    CAT,
    GraphModule,
    Node,
    calls,
    constant,
    evaluate,
    new_constant,
    refresh,
    replace,
)


def fold_constants(gm: GraphModule) -> None:
    """Evaluates every call whose tensor inputs are all constant; joins constants within a cat."""

    def value(node: Any) -> Tensor:
        result = constant(gm, node)
        assert result is not None
        return result

    for node in calls(gm):
        inputs = node.all_input_nodes
        if all(source.op == "get_attr" for source in inputs):
            # Tuples (of a split) are taken apart by the views that read them.
            if isinstance(node.meta.get("val"), Tensor):
                replace(gm, node, new_constant(gm, node, evaluate(node, value)))
        elif node.target is CAT:
            _join_neighbours(gm, node)


def _join_neighbours(gm: GraphModule, cat: Node) -> None:
    """Class token and distillation token, say, become one operand."""
    operands, dim = cat.args
    joined: list[Node] = []
    for operand in operands:  # type: ignore[union-attr]
        assert isinstance(operand, Node) and isinstance(dim, int)
        last = constant(gm, joined[-1]) if joined else None
        value = constant(gm, operand)
        if last is not None and value is not None:
            joined[-1] = new_constant(gm, cat, torch.cat([last, value], dim))
        else:
            joined.append(operand)
    cat.update_arg(0, joined)
    refresh(cat)
