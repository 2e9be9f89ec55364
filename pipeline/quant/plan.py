"""Which quantizers a graph needs: the one answer that calibration and insertion share."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from pipeline.quant import walk
from pipeline.quant.calibration import gemm_input_key
from pipeline.quant.formats import Format, Uniform, format_of, gemm_input
from pipeline.quant.recipe import Recipe
from pipeline.quant.roles import Role, RoleTable, resolve_roles


@dataclass(frozen=True)
class GemmInput:
    """An 8-bit copy of a 16-bit tensor.

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
        copies: (matrix product, index of the operand) -> the 8-bit copy that it reads, where its
            operand is stored in 16 bits.
        flat: producing node -> range outside which the non-linearities that read it are flat, for
            pre-activations.
    """

    roles: RoleTable
    formats: Mapping[str, Format]
    copies: Mapping[tuple[str, int], GemmInput]
    flat: Mapping[str, tuple[float, float]]


def make_plan(graph: fx.Graph, recipe: Recipe) -> Plan:
    """Decide the quantizers of a canonical graph."""
    roles = resolve_roles(graph)
    formats = {}
    for name, role in roles.tensors.items():
        if (chosen := format_of(role, recipe)) is not None:
            formats[name] = chosen
    copies = {}
    for node in graph.nodes:
        if node.target not in walk.GEMMS or node.name in roles.heads_mixers:
            continue
        is_matmul = node.target is walk.MATMUL
        for index, tensor in enumerate(walk.operands(node) if is_matmul else node.args[:1]):
            producer = walk.source(tensor)
            if producer.target is walk.SOFTMAX and is_matmul:
                continue
            if _is_wide(formats.get(producer.name)):
                key = gemm_input_key(producer.name, symmetric=is_matmul)
                copies[node.name, index] = GemmInput(
                    producer.name, key, gemm_input(recipe, is_matmul)
                )
    preacts = (n for n in graph.nodes if roles.tensors.get(n.name) is Role.PREACT)
    return Plan(roles, formats, copies, {n.name: _flat_beyond(n) for n in preacts})


def _flat_beyond(preact: fx.Node) -> tuple[float, float]:
    lows, highs = zip(*(walk.CURVES[r.target] for r in walk.consumers(preact)), strict=True)
    return min(lows), max(highs)


def _is_wide(chosen: Format | None) -> bool:
    return isinstance(chosen, Uniform) and chosen.dtype == "int16"
