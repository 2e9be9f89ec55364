"""Units: pieces that follow each other, read what earlier ones give, and are the whole graph."""

import pytest
import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.images import as_input
from pipeline.quant.plan import make_plan
from pipeline.quant.recipe import load_recipe
from pipeline.quant.student import Student
from pipeline.quant.units import Unit, merge_blocks, split_at_products, split_units
from tests.pipeline.quant.conftest import Builder
from tests.pipeline.quant.networks import NETWORKS

pieces = pytest.mark.parametrize(
    "units_of",
    [
        lambda graph: split_units(graph),
        lambda graph: split_units(graph, width=2),
        lambda graph: merge_blocks(split_units(graph)),
        lambda graph: split_at_products(graph),
    ],
    ids=["one stream", "two streams", "blocks", "products"],
)
networks = pytest.mark.parametrize("name", NETWORKS)


@networks
@pieces
def test_every_operator_is_in_one_unit_in_order(name: str, units_of) -> None:
    graph = NETWORKS[name](Builder()).graph
    units = units_of(graph)
    expected = [n for n in graph.nodes if n.op in ("placeholder", "call_function")]
    assert [n for unit in units for n in unit.nodes] == expected
    assert len(units) > 1


@networks
@pieces
def test_inputs_and_outputs_are_what_crosses_the_cuts(name: str, units_of) -> None:
    graph = NETWORKS[name](Builder()).graph
    units = units_of(graph)
    where = {node: index for index, unit in enumerate(units) for node in unit.nodes}
    for index, unit in enumerate(units):
        read = {n for node in unit.nodes for n in node.all_input_nodes if n in where}
        assert set(unit.inputs) == {n for n in read if where[n] < index}
        assert set(unit.outputs) == {
            n for n in unit.nodes if any(where.get(u, len(units)) > index for u in n.users)
        }
        assert unit.name == unit.outputs[-1].name


@networks
@pieces
def test_one_unit_after_the_other_is_the_whole_graph(name: str, units_of, images) -> None:
    graph = NETWORKS[name](Builder())
    student = Student(graph, make_plan(graph.graph, load_recipe("w8a8")), {}, {}, {})
    units: list[Unit] = units_of(graph.graph)
    (image,) = (n for n in graph.graph.nodes if n.op == "placeholder")
    photo = as_input(images[0], graph)
    values: dict[fx.Node, Tensor] = {image: photo}
    for unit in units:
        inputs = {image: photo} if not unit.inputs else {n: values[n] for n in unit.inputs}
        values |= student.unit(unit, inputs)
    (logits,) = units[-1].outputs
    assert torch.equal(values[logits], graph(photo))


@networks
def test_one_stream_means_one_output(name: str) -> None:
    for unit in split_units(NETWORKS[name](Builder()).graph):
        assert len(unit.outputs) == 1 and len(unit.inputs) <= 1
        assert unit.products


def test_more_streams_make_smaller_units() -> None:
    graph = NETWORKS["hybrid"](Builder()).graph
    narrow, wide = split_units(graph), split_units(graph, width=2)
    assert len(wide) > len(narrow)
    assert max(len(u.outputs) for u in wide) == 2


def test_units_of_a_transformer_are_attention_and_mlp() -> None:
    units = split_units(NETWORKS["transformer"](Builder()).graph)
    kinds = ["attention" if _attends(u) else str(len(u.products)) for u in units]
    assert kinds == ["1", "attention", "2", "attention", "2", "1"]
    # The position embedding belongs to the stem: what follows is the residual stream.
    assert units[0].nodes[-1].target is walk.ADD


def test_blocks_of_a_transformer_are_attention_with_its_mlp() -> None:
    units = merge_blocks(split_units(NETWORKS["transformer"](Builder()).graph))
    assert [(len(u.products), _attends(u)) for u in units] == [
        (1, False), (6, True), (6, True), (1, False),
    ]  # fmt: skip


def test_the_head_stays_alone_after_attention(builder) -> None:
    x = builder.tokens(builder.stem())
    x = builder.call(torch.ops.aten.add.Tensor, x, builder.attention(builder.norm(x)))
    units = merge_blocks(split_units(builder.head(x).graph))
    assert [_attends(u) for u in units] == [False, True, False]


def _attends(unit: Unit) -> bool:
    return any(n.target is walk.MATMUL for n in unit.nodes)
