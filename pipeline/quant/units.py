"""Units: consecutive pieces of a graph that only few tensors connect.

The unit of sequential calibration and of reconstruction. Cuts lie where residual blocks end, so a
unit of a plain transformer is attention or an MLP with its residual sum, or both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from pipeline.quant import walk


@dataclass(frozen=True)
class Unit:
    """A run of nodes in the order of the graph.

    Attributes:
        nodes: the operators, constants left out.
        inputs: tensors of earlier units that they read.
        outputs: tensors of theirs that later units, or the graph's output, read.
    """

    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]

    @property
    def products(self) -> tuple[fx.Node, ...]:
        """Products among the operators."""
        return tuple(node for node in self.nodes if node.target in walk.GEMMS)

    @property
    def name(self) -> str:
        """Name of the last output."""
        return self.outputs[-1].name


def split_units(graph: fx.Graph, width: int = 1) -> list[Unit]:
    """Cut a canonical graph wherever at most `width` tensors are alive, and products were done.

    Args:
        graph: canonical graph.
        width: number of tensors that may cross a cut; 1 for networks with one stream.
    """
    nodes, position, last_use = _lives(graph)
    units: list[Unit] = []
    start = 0
    for end in range(1, len(nodes) + 1):
        alive = [n for i, n in enumerate(nodes[:end]) if last_use[i] >= end]
        piece = nodes[start:end]
        done = any(node.target in walk.GEMMS for node in piece)
        if end < len(nodes) and (len(alive) > width or not done or _continues(nodes[end - 1])):
            continue
        units.append(_unit(piece, position, last_use, end))
        start = end
    return units


def split_at_products(graph: fx.Graph) -> list[Unit]:
    """Cut behind every product, however many tensors cross; operators behind the last stay out."""
    nodes, position, last_use = _lives(graph)
    ends = [index + 1 for index, node in enumerate(nodes) if node.target in walk.GEMMS]
    return [
        _unit(nodes[start:end], position, last_use, end)
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def rest_after(graph: fx.Graph, node: fx.Node) -> Unit:
    """All operators behind one of a graph."""
    nodes, position, last_use = _lives(graph)
    return _unit(nodes[position[node] + 1 :], position, last_use, len(nodes))


def _lives(graph: fx.Graph) -> tuple[list[fx.Node], dict[fx.Node, int], list[int]]:
    """Operators, their positions, and the position of the last reader of each."""
    nodes = [n for n in graph.nodes if n.op in ("placeholder", "call_function")]
    position = {node: index for index, node in enumerate(nodes)}
    last_use = [
        max((position.get(user, len(nodes)) for user in node.users), default=index)
        for index, node in enumerate(nodes)
    ]
    return nodes, position, last_use


def _continues(node: fx.Node) -> bool:
    """Whether the tensor is better cut behind its reader: a view or constants follow."""
    return any(user.target in walk.VIEWS or _adds_constant(user) for user in node.users)


def _adds_constant(node: fx.Node) -> bool:
    """Whether the node adds or multiplies by a constant."""
    return node.target in (walk.ADD, walk.MUL) and walk.has_constant(node)


def _unit(
    piece: Sequence[fx.Node], position: dict[fx.Node, int], last_use: Sequence[int], end: int
) -> Unit:
    inside = set(piece)
    inputs = {
        source: None
        for node in piece
        for source in node.all_input_nodes
        if source not in inside and source in position
    }
    outputs = [node for node in piece if last_use[position[node]] >= end]
    return Unit(tuple(piece), tuple(inputs), tuple(outputs))


def merge_blocks(units: Sequence[Unit], products: int = 4) -> list[Unit]:
    """Join neighbours until each unit has attention with its MLP: the blocks of the papers.

    Args:
        units: consecutive units with one stream.
        products: units with fewer products are joined to the next, while both stay small.
    """
    merged: list[Unit] = []
    for unit in units:
        before = merged[-1] if merged else None
        if before is not None and _has_attention(before) and not _has_attention(unit):
            if len(unit.products) < products and not _is_head(unit):
                merged[-1] = Unit(before.nodes + unit.nodes, before.inputs, unit.outputs)
                continue
        merged.append(unit)
    return merged


def _has_attention(unit: Unit) -> bool:
    return any(node.target is walk.MATMUL for node in unit.nodes)


def _is_head(unit: Unit) -> bool:
    return any(user.op == "output" for node in unit.outputs for user in node.users)
