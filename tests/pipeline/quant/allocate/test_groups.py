"""Groups follow the structure: attention, MLPs, bottlenecks."""

from torch import fx

from pipeline.quant.allocate.groups import Group, find_groups
from pipeline.quant.roles import resolve_roles
from tests.pipeline.quant.conftest import Builder, aten


def _paths(nodes: tuple[fx.Node, ...]) -> list[str]:
    return [node.meta["module_path"] for node in nodes]


def _groups(graph: fx.GraphModule, kind: str) -> list[Group]:
    return find_groups(graph.graph, resolve_roles(graph.graph), kind)  # type: ignore[arg-type]


def test_blocks_are_attention_and_mlp_with_stem_and_head_apart(vit) -> None:
    assert [_paths(group.products) for group in _groups(vit, "blocks")] == [
        ["stem"],
        ["attn.qkv", "attn.qk", "attn.av", "attn.proj"],
        ["mlp.fc1", "mlp.fc2"],
        ["head"],
    ]


def test_products_of_computed_tensors_go_with_those_that_compute_them(vit) -> None:
    assert [_paths(group.products) for group in _groups(vit, "products")] == [
        ["stem"],
        ["attn.qkv", "attn.qk", "attn.av"],
        ["attn.proj"],
        ["mlp.fc1"],
        ["mlp.fc2"],
        ["head"],
    ]


def test_groups_are_judged_by_their_last_products(vit) -> None:
    results = [_paths(group.results) for group in _groups(vit, "blocks")]
    assert results == [["stem"], ["attn.proj"], ["mlp.fc2"], ["head"]]


def test_products_that_read_one_tensor_belong_together(builder: Builder) -> None:
    x = builder.norm(builder.tokens(builder.stem()))
    parts = [builder.linear(x, 8, path=name) for name in ("a", "b")]
    total = builder.call(aten.add.Tensor, *parts)
    groups = _groups(builder.head(total), "products")
    assert ["a", "b"] in [_paths(group.products) for group in groups]


def test_bottlenecks_end_a_block(builder: Builder) -> None:
    x = builder.call(aten.silu.default, builder.stem())
    for name in ("one", "two"):
        x = builder.call(aten.silu.default, builder.conv(x, 16, path=f"{name}.expand"))
        x = builder.conv(x, 8, path=f"{name}.project")
    groups = _groups(builder.head(builder.tokens(x)), "blocks")
    assert [_paths(group.products) for group in groups] == [
        ["stem"],
        ["one.expand", "one.project"],
        ["two.expand", "two.project"],
        ["head"],
    ]


def test_every_product_is_in_one_group(vit) -> None:
    for kind in ("blocks", "products"):
        members = [p for group in _groups(vit, kind) for p in group.products]
        assert len(members) == len(set(members)) == 8
