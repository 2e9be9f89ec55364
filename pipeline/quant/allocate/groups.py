"""Groups of products whose bits go together, found from the structure of the graph."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import fx

from pipeline.quant import walk
from pipeline.quant.plan import product_operands
from pipeline.quant.roles import Role, RoleTable

_ENDS = frozenset({walk.CAT, walk.RESIZE}) | walk.NORMS | walk.POOLS


@dataclass(frozen=True)
class Group:
    """Products with the same bits.

    Attributes:
        products: in the order of the graph.
        results: those whose results no other product of the group reads.
    """

    products: tuple[fx.Node, ...]
    results: tuple[fx.Node, ...]


def find_groups(
    graph: fx.Graph, roles: RoleTable, kind: Literal["blocks", "products"]
) -> list[Group]:
    """Cut the products of a canonical graph into groups, in the order of the graph.

    Products that read one tensor belong together, since it is stored once; so do products of two
    computed tensors and those that compute them, since they have no weights of their own. Blocks
    join what a non-linearity connects: they end at sums, normalizations, pooling, and where one
    linear product follows another. Convolutions over heads are left out: their bits are fixed.

    Args:
        graph: canonical graph.
        roles: its roles.
        kind: `products` or `blocks`.
    """
    products = [
        node
        for node in graph.nodes
        if node.target in walk.GEMMS and node.name not in roles.heads_mixers
    ]
    sources = {p: set(_sources(p, roles)) for p in products}
    joined = _Partition(products)
    readers: dict[fx.Node, fx.Node] = {}
    for product in products:
        for operand in product_operands(product):
            if not walk.is_constant(walk.source(operand)):
                joined.join(product, readers.setdefault(walk.source(operand), product))
        for source in sources[product]:
            if product.target is walk.MATMUL or (
                kind == "blocks" and _is_inside(product, source, roles)
            ):
                joined.join(product, source)
    return [Group(tuple(members), tuple(_results(members, sources))) for members in joined.parts()]


def _is_inside(product: fx.Node, source: fx.Node, roles: RoleTable) -> bool:
    """Whether a block goes on from one product to the next."""
    if roles.stem & {source.name} or roles.head & {product.name}:
        return False
    direct = any(_linear_source(operand) is source for operand in product_operands(product))
    return source.target is walk.MATMUL or not direct


def _linear_source(tensor: fx.Node) -> fx.Node:
    """The producer of a tensor, looking back through views, constants and factors per channel."""
    while (before := walk.origin(tensor)) is not tensor or walk.is_channel_factor(before):
        tensor = before
        if walk.is_channel_factor(before):
            tensor = next(n for n in walk.operands(before) if not walk.is_constant(n))
    return tensor


def _sources(product: fx.Node, roles: RoleTable) -> Iterator[fx.Node]:
    """Products whose results a product reads, with nothing in between that ends a block."""
    open_nodes, seen = list(product_operands(product)), set()
    while open_nodes:
        node = open_nodes.pop()
        if node in seen or _ends_block(node, roles):
            continue
        seen.add(node)
        if node.target in walk.GEMMS and node.name not in roles.heads_mixers:
            yield node
        else:
            open_nodes += node.all_input_nodes


def _ends_block(node: fx.Node, roles: RoleTable) -> bool:
    """Whether what was computed before a tensor belongs to other blocks."""
    if node.op != "call_function" or node.target in _ENDS:
        return True
    is_sum = node.target is walk.ADD and walk.is_sum(node)
    return is_sum and roles.tensors[node.name] is not Role.PREACT


def _results(members: list[fx.Node], sources: dict[fx.Node, set[fx.Node]]) -> list[fx.Node]:
    inner = set().union(*(sources[member] for member in members))
    return [member for member in members if member not in inner]


class _Partition:
    """Disjoint sets of products."""

    def __init__(self, products: list[fx.Node]) -> None:
        self._part = {product: [product] for product in products}
        self._order = {product: index for index, product in enumerate(products)}

    def join(self, a: fx.Node, b: fx.Node) -> None:
        first, second = self._part[a], self._part[b]
        if first is not second:
            first += second
            self._part.update(dict.fromkeys(second, first))

    def parts(self) -> list[list[fx.Node]]:
        unique = {
            id(part): sorted(part, key=self._order.__getitem__) for part in self._part.values()
        }
        return sorted(unique.values(), key=lambda part: self._order[part[0]])
