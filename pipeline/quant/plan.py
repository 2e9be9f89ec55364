"""Which quantizers a graph needs: the one answer that calibration, search and insertion share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType

from torch import fx

from pipeline.quant import walk
from pipeline.quant.calibration import gemm_input_key
from pipeline.quant.formats import format_of, operand
from pipeline.quant.heads import Heads, heads_of
from pipeline.quant.quantizers import Format
from pipeline.quant.quantizers.uniform import Uniform
from pipeline.quant.recipe import Recipe
from pipeline.quant.roles import Role, RoleTable, resolve_roles

Bits = Mapping[str, int]
"""Product -> bits of its operands, where they are not those of the recipe: 2 to 8, or 16.

At 16 bits the weights, and the operands of a product of two computed tensors, keep 8. Products that
read the same tensor have the same bits.
"""

NO_BITS: Bits = MappingProxyType({})


@dataclass(frozen=True)
class GemmInput:
    """A narrow copy of a wide tensor.

    Attributes:
        source: name of the node that produces the tensor.
        key: its key in the calibration.
        format: its format.
    """

    source: str
    key: str
    format: Uniform


@dataclass(frozen=True)
class Plan:
    """Quantizers of one graph under one recipe.

    Attributes:
        roles: roles of all tensors.
        formats: producing node -> format, for every tensor that is stored.
        copies: (product, index of the operand) -> the narrow copy that it reads, where its
            operand is stored with more bits.
        flat: producing node -> range outside which the non-linearities that read it are flat, for
            pre-activations.
        heads: producing node -> heads of its channels, where every head has a scale.
        weights: product with constant weights -> their bits.
    """

    roles: RoleTable
    formats: Mapping[str, Format]
    copies: Mapping[tuple[str, int], GemmInput]
    flat: Mapping[str, tuple[float, float]]
    heads: Mapping[str, Heads] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)

    def key_of(self, product: fx.Node, index: int) -> str:
        """Key of the quantizer of what a product reads as its operand `index`."""
        if (copy := self.copies.get((product.name, index))) is not None:
            return copy.key
        return walk.source(product_operands(product)[index]).name

    def format_of_key(self, key: str) -> Format:
        """Format of a tensor or of a narrow copy, by its key."""
        if key in self.formats:
            return self.formats[key]
        return next(copy.format for copy in self.copies.values() if copy.key == key)


def product_operands(product: fx.Node) -> tuple[fx.Node, ...]:
    """The tensors of a product that are not weights."""
    if product.target is walk.MATMUL:
        return walk.operands(product)
    return (walk.input_of(product),)


def make_plan(graph: fx.Graph, recipe: Recipe, bits: Bits = NO_BITS) -> Plan:
    """Decide the quantizers of a canonical graph.

    Args:
        graph: canonical graph.
        recipe: bits and formats.
        bits: exceptions from the recipe's bits.
    """
    roles = resolve_roles(graph)
    nodes = {node.name: node for node in graph.nodes}
    products = [n for n in graph.nodes if n.target in walk.GEMMS]
    formats: dict[str, Format] = {}
    heads: dict[str, Heads] = {}
    for name, role in roles.tensors.items():
        width = _stored_bits(nodes[name], roles, recipe, bits)
        if (chosen := format_of(role, recipe, width, _deepest(nodes[name]))) is not None:
            formats[name] = chosen
        if recipe.activations.per_head and role in (Role.Q, Role.K, Role.V):
            if (found := heads_of(nodes[name])) is not None:
                heads[name] = found
    copies = {}
    for node in products:
        if node.name in roles.heads_mixers:
            continue
        if walk.is_token_linear(node) and recipe.token_bits == 16:
            continue
        is_matmul = node.target is walk.MATMUL
        width = _product_bits(node, roles, recipe, bits)
        for index, tensor in enumerate(product_operands(node)):
            producer = walk.source(tensor)
            if producer.target is walk.SOFTMAX and is_matmul:
                continue
            stored = formats.get(producer.name)
            if not isinstance(stored, Uniform) or stored.dtype == "uint8":
                continue
            role = Role.OPERAND if is_matmul else Role.GEMM_IN
            target = operand(role, recipe, width, _deepest(producer))
            if stored.qmax > target.qmax:
                key = gemm_input_key(producer.name, is_matmul)
                copies[node.name, index] = GemmInput(producer.name, key, target)
    preacts = (n for n in graph.nodes if roles.tensors.get(n.name) is Role.PREACT)
    return Plan(
        roles,
        formats,
        copies,
        {n.name: _flat_beyond(n) for n in preacts},
        heads,
        {
            n.name: _weight_bits(n, roles, recipe, bits)
            for n in products
            if n.target in walk.WEIGHTED
        },
    )


def _product_bits(product: fx.Node, roles: RoleTable, recipe: Recipe, bits: Bits) -> int:
    """Bits of what a product reads."""
    if product.name in bits:
        return min(bits[product.name], 8) if product.target is walk.MATMUL else bits[product.name]
    if product.name in roles.head and recipe.activations.head_bits is not None:
        return recipe.activations.head_bits
    return recipe.activations.bits


def _weight_bits(product: fx.Node, roles: RoleTable, recipe: Recipe, bits: Bits) -> int:
    weights = recipe.weights
    if product.name in roles.heads_mixers:
        return 8
    if product.name in bits:
        return min(bits[product.name], 8)
    if product.name in roles.stem and weights.stem_bits is not None:
        return weights.stem_bits
    if product.name in roles.head and weights.head_bits is not None:
        return weights.head_bits
    return weights.bits


def _stored_bits(node: fx.Node, roles: RoleTable, recipe: Recipe, bits: Bits) -> int:
    """Bits in which a tensor is stored: as few as all its readers want."""
    wanted = [
        _product_bits(reader, roles, recipe, bits) if reader.target in walk.GEMMS else 8
        for reader in walk.consumers(node)
    ]
    return max(wanted, default=8)


def _depth(product: fx.Node) -> int:
    """Products that a convolution or linear adds up for every output."""
    weight = product.args[1]
    assert isinstance(weight, fx.Node)
    return prod(weight.meta["val"].shape[1:])


def _deepest(node: fx.Node) -> int:
    """Depth of the deepest product with constant weights that reads a tensor."""
    readers = (reader for reader in walk.consumers(node) if reader.target in walk.WEIGHTED)
    return max(map(_depth, readers), default=1)


def _flat_beyond(preact: fx.Node) -> tuple[float, float]:
    lows, highs = zip(*(walk.CURVES[r.target] for r in walk.consumers(preact)), strict=True)
    return min(lows), max(highs)
