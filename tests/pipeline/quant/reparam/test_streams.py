"""Linear streams: which they are, and that factors around them change nothing."""

from typing import Any

import pytest
import torch
from torch import fx

from pipeline.quant.images import as_input
from pipeline.quant.plan import make_plan
from pipeline.quant.recipe import Equalize, parse_recipe
from pipeline.quant.reparam.choose import choose_streams
from pipeline.quant.reparam.equalize import Equalization, equalize
from pipeline.quant.reparam.streams import stream_of
from pipeline.quant.sites import Sampling, collect_sites
from tests.pipeline.quant.conftest import Builder

aten = torch.ops.aten
RECIPE = parse_recipe({"name": "w8a8"}, "test")


def bottlenecks(builder: Builder) -> dict[str, fx.Node]:
    """Two bottlenecks with a residual sum between them, then a skip over a convolution."""
    x = builder.call(aten.silu.default, builder.stem())
    first = builder.conv(x, 8, path="first")
    hidden = builder.call(aten.silu.default, builder.conv(first, 16, path="expand"))
    second = builder.conv(hidden, 8, path="second")
    total = builder.call(aten.add.Tensor, first, second)
    deep = builder.call(aten.silu.default, builder.conv(total, 4, 3, 1, path="deep"))
    joined = builder.call(aten.cat.default, [deep, total], 1)
    last = builder.call(aten.silu.default, builder.conv(joined, 8, path="last"))
    return {"first": first, "second": second, "total": total, "joined": joined, "last": last}


def test_a_stream_has_its_sums_writers_and_readers(builder) -> None:
    nodes = bottlenecks(builder)
    stream = stream_of(nodes["total"])
    assert stream is not None
    assert stream.members == {nodes["first"], nodes["second"], nodes["total"]}
    assert set(stream.writers) == {nodes["first"], nodes["second"]}
    paths = sorted(r.product.meta["module_path"] for r in stream.readers)
    assert paths == ["deep", "expand", "last"]
    (joined,) = (r for r in stream.readers if r.product.meta["module_path"] == "last")
    assert joined.channel.flatten().tolist() == [-1] * 4 + list(range(8))
    assert (other := stream_of(nodes["first"])) is not None and other.members == stream.members


@pytest.mark.parametrize("reader", ["activation", "norm", "constant", "output"])
def test_what_others_read_is_no_stream(builder, reader: str) -> None:
    x = builder.conv(builder.stem(), 8)
    builder.conv(x, 8)
    if reader == "activation":
        builder.call(aten.silu.default, x)
    elif reader == "norm":
        builder.norm(builder.tokens(x))
    elif reader == "constant":
        builder.call(aten.add.Tensor, x, builder.random_constant(1, 8, 1, 1))
    else:
        builder.graph.output(x)
    assert stream_of(x) is None


def test_what_an_activation_adds_to_is_no_stream(builder) -> None:
    x = builder.call(aten.silu.default, builder.stem())
    total = builder.call(aten.add.Tensor, x, builder.conv(x, 8))
    builder.conv(total, 8)
    assert stream_of(total) is None


def test_factors_change_nothing_and_need_no_operator(builder, images) -> None:
    nodes = bottlenecks(builder)
    graph = builder.head(builder.tokens(nodes["last"]))
    factor = tuple(2.0 ** (i - 4) for i in range(8))
    changed = equalize(graph, [Equalization(nodes["second"].name, factor, stream=True)])
    targets = [
        [n.target for n in g.graph.nodes if n.op == "call_function"] for g in (graph, changed)
    ]
    assert targets[0] == targets[1]
    expected, found = (g(as_input(images[0], g)) for g in (graph, changed))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    total = _value(changed, nodes["total"].name, images[0])
    before = _value(graph, nodes["total"].name, images[0])
    torch.testing.assert_close(total * torch.tensor(factor).reshape(1, -1, 1, 1), before)


def test_uneven_channels_are_brought_to_one_scale(builder, images) -> None:
    nodes = bottlenecks(builder)
    graph = builder.head(builder.tokens(nodes["last"]))
    uneven = tuple(2.0 ** (i - 4) for i in range(8))
    graph = equalize(graph, [Equalization(nodes["second"].name, uneven, stream=True)])
    plan = make_plan(graph.graph, RECIPE)
    sites = collect_sites(graph, images[:4], Sampling())
    settings = Equalize(tensors="all", statistics=("deviation",), exponents=(0.0, 1.0))
    (one,) = choose_streams(graph, plan, RECIPE, settings, images[:4], sites)
    assert one.stream
    widths = _value(equalize(graph, [one]), nodes["total"].name, images[0])
    widths = widths.square().mean(dim=(0, 2, 3)).sqrt()
    before = _value(graph, nodes["total"].name, images[0]).square().mean(dim=(0, 2, 3)).sqrt()
    assert float(widths.max() / widths.min()) < 0.2 * float(before.max() / before.min())
    norms = Equalize(tensors="norms")
    assert choose_streams(graph, plan, RECIPE, norms, images[:4], sites) == []


def _value(graph: fx.GraphModule, name: str, image: Any) -> torch.Tensor:
    interpreter = fx.Interpreter(graph, garbage_collect_values=False)
    interpreter.run(as_input(image, graph))
    value: torch.Tensor = next(v for n, v in interpreter.env.items() if n.name == name)
    return value
