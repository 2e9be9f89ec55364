"""Which roles have which formats in a QDQ graph: shows what is 8 and what is 16 bits."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import fx

from pipeline.quant import walk
from pipeline.quant.plan import NO_BITS, Bits
from pipeline.quant.quantizers.uniform import Uniform


@dataclass(frozen=True, order=True)
class RoleFormat:
    """One line of the summary.

    Attributes:
        role: role of the tensors, `weight` for weights, `product` for products with bits of their
            own.
        format: such as "int8", "int16", "int8, 4 bits", "adalog, 8 bits"; "4 bits" for products.
        tensors: how many tensors, or products, have this role and format.
    """

    role: str
    format: str
    tensors: int


def summarize(graph: fx.GraphModule, bits: Bits = NO_BITS) -> list[RoleFormat]:
    """Formats by role of a QDQ graph, sorted by role.

    Args:
        graph: QDQ graph.
        bits: of products, where they differ from the recipe's.
    """
    counts = Counter(("product", f"{width} bits") for width in bits.values())
    for node in graph.graph.nodes:
        if "role" in node.meta:
            counts[node.meta["role"], node.meta["format"]] += 1
        elif node.target in walk.WEIGHTED:
            counts["weight", _weight_format(graph, node)] += 1
    return sorted(RoleFormat(role, name, n) for (role, name), n in counts.items())


def _weight_format(graph: fx.GraphModule, node: fx.Node) -> str:
    codes: Any = getattr(graph, node.args[1].args[0].target)  # type: ignore[union-attr,arg-type]
    rows = codes.flatten(1).int()
    span = int((rows.amax(dim=1) - rows.amin(dim=1)).max())
    return str(Uniform("int8", 0, max(span, 1)))
