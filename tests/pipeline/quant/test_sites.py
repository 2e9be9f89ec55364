"""Sites: samples of every product in one form, from which the product can be computed again."""

from typing import Any

import pytest
import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.images import as_input
from pipeline.quant.sites import (
    Paired,
    Sampling,
    Weighted,
    collect_sites,
    conv_rows,
    weighted_output,
)

aten = torch.ops.aten
ALL = Sampling(rows=1 << 30, images=1 << 30)

CONVOLUTIONS: dict[str, tuple[int, tuple[int, int], tuple[Any, ...]]] = {
    # channels, kernel, (stride, padding, dilation, groups)
    "1x1": (6, (1, 1), ([1, 1], [0, 0], [1, 1], 1)),
    "1x1, stride": (6, (1, 1), ([2, 2], [0, 0], [1, 1], 1)),
    "1x1, uneven stride": (6, (1, 1), ([1, 3], [0, 0], [1, 1], 1)),
    "1x1, padding": (6, (1, 1), ([1, 1], [1, 1], [1, 1], 1)),
    "1x1, groups": (6, (1, 1), ([1, 1], [0, 0], [1, 1], 2)),
    "3x3": (6, (3, 3), ([1, 1], [1, 1], [1, 1], 1)),
    "3x3, stride": (6, (3, 3), ([2, 2], [1, 1], [1, 1], 1)),
    "3x2, uneven": (6, (3, 2), ([2, 1], [1, 0], [1, 2], 1)),
    "depthwise": (4, (3, 3), ([1, 1], [1, 1], [1, 1], 4)),
    "depthwise, multiplier": (8, (3, 3), ([2, 2], [1, 1], [1, 1], 4)),
    "groups": (6, (3, 3), ([1, 1], [1, 1], [1, 1], 2)),
    "patches": (6, (4, 4), ([4, 4], [0, 0], [1, 1], 1)),
    "defaults": (6, (3, 3), ()),
    "stride alone": (6, (1, 1), ([2, 2],)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_rows_times_weights_are_the_convolution(builder, case: str) -> None:
    channels, kernel, settings = CONVOLUTIONS[case]
    groups = settings[3] if len(settings) > 3 else 1
    weight = builder.random_constant(channels, 4 // groups, *kernel)
    x = builder.random_constant(1, 4, 8, 8)
    node = builder.call(aten.conv2d.default, x, weight, None, *settings)
    tensor, w = builder.tensors[x.target], builder.tensors[weight.target]
    expected = aten.conv2d.default(tensor, w, None, *settings)
    rows = conv_rows(node, tensor)
    found = weighted_output(rows, w.reshape(groups, channels // groups, -1))
    found = found.flatten(1).T.reshape(expected.shape)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("candidates", ["none", "of inputs", "of weights"])
def test_outputs_with_an_axis_of_candidates(groups: int, candidates: str) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(7, groups, 5, generator=random)
    w = torch.randn(groups, 2, 5, generator=random)
    if candidates == "of inputs":
        x = torch.stack([x, 2 * x])
    elif candidates == "of weights":
        w = torch.stack([w, 2 * w])
    expected = torch.einsum("...sgk,...gok->...sgo", x, w)
    torch.testing.assert_close(weighted_output(x, w), expected)


def run(graph: fx.GraphModule, images: Any) -> list[dict[fx.Node, Tensor]]:
    """All tensors of a graph, photo by photo."""
    found = []
    for image in images:
        interpreter = fx.Interpreter(graph, garbage_collect_values=False)
        interpreter.run(as_input(image, graph))
        found.append(dict(interpreter.env))
    return found


def test_every_product_of_a_transformer_is_sampled(vit, images) -> None:
    sites = collect_sites(vit, images[:3], ALL)
    for node, values in [(n, run(vit, images[:3])) for n in vit.graph.nodes]:
        if node.target not in walk.GEMMS:
            assert node.name not in sites
            continue
        site = sites[node.name]
        whole = torch.cat([env[node] for env in values])
        if isinstance(site, Paired):
            torch.testing.assert_close(site.a @ site.b, whole, rtol=1e-4, atol=1e-5)
            assert torch.equal(site.y, site.a @ site.b)
            continue
        assert site.images == 3 and len(site.x) % 3 == 0
        bias = getattr(vit, node.args[2].target)
        channels = whole.movedim(1, -1) if node.target is walk.CONV else whole
        outputs = site.y.flatten(1) + bias
        torch.testing.assert_close(outputs, channels.reshape(outputs.shape), rtol=1e-4, atol=1e-4)


def test_moments_count_all_positions_whatever_is_sampled(vit, images) -> None:
    few, all_ = (collect_sites(vit, images[:3], s) for s in (Sampling(rows=2), ALL))
    for name, site in few.items():
        if isinstance(site, Weighted):
            whole = all_[name]
            assert isinstance(whole, Weighted)
            expected = torch.einsum("sgi,sgj->gij", whole.x, whole.x) / len(whole.x)
            torch.testing.assert_close(site.moments, expected, rtol=1e-4, atol=1e-4)


def test_sampled_rows_are_rows_of_the_whole(vit, images) -> None:
    few, all_ = (collect_sites(vit, images[:2], s) for s in (Sampling(rows=5), ALL))
    for name, site in few.items():
        whole = all_[name]
        if isinstance(site, Weighted) and isinstance(whole, Weighted):
            kept = len(site.x) // 2
            assert kept == min(5, len(whole.x) // 2)
            for photo in range(2):
                mine = site.x[photo * kept : (photo + 1) * kept]
                theirs = whole.x[photo * len(whole.x) // 2 : (photo + 1) * len(whole.x) // 2]
                assert (mine.unsqueeze(1) == theirs).all(-1).all(-1).any(1).all()
        elif isinstance(site, Paired) and isinstance(whole, Paired):
            assert site.a.shape[-2] == 5 and torch.equal(site.b, whole.b)


def test_matrices_are_kept_of_the_first_photos_only(vit, images) -> None:
    sites = collect_sites(vit, images[:4], Sampling(rows=3, images=2))
    assert {len(s.a) for s in sites.values() if isinstance(s, Paired)} == {2}
    assert {s.images for s in sites.values() if isinstance(s, Weighted)} == {4}


def test_the_seed_decides_the_positions(vit, images) -> None:
    def rows(seed: int) -> Tensor:
        site = collect_sites(vit, images[:2], Sampling(4, 2, seed))["linear_default"]
        assert isinstance(site, Weighted)
        return site.x

    assert torch.equal(rows(0), rows(0))
    assert not torch.equal(rows(0), rows(1))


def test_products_of_a_constant_have_no_second_operand_to_search(builder, images) -> None:
    x = builder.tokens(builder.stem())
    mixed = builder.call(aten.matmul.default, builder.random_constant(1, 64, 64), x)
    sites = collect_sites(builder.head(mixed), images[:1], ALL)
    assert not any(isinstance(s, Paired) for s in sites.values())


@pytest.mark.parametrize("shapes", [((64, 8), (8, 8)), ((1, 64, 8), (8, 8))], ids=str)
def test_matrices_without_heads_and_with_shared_ones(builder, images, shapes) -> None:
    x = builder.stem()
    rows = builder.call(aten.reshape.default, x, list(shapes[0]))
    columns = builder.call(
        aten.reshape.default, builder.call(aten.mean.dim, x, [1], False), list(shapes[1])
    )
    product = builder.call(aten.matmul.default, rows, columns)
    graph = builder.head(builder.call(aten.reshape.default, product, [1, 64, 8]))
    site = collect_sites(graph, images[:2], ALL)[product.name]
    assert isinstance(site, Paired)
    expected = torch.stack([env[product].reshape(64, 8) for env in run(graph, images[:2])])
    torch.testing.assert_close(site.y.reshape(2, 64, 8), expected, rtol=1e-4, atol=1e-5)
