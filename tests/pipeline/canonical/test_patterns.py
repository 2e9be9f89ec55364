"""Rewrites of larger patterns: pool mixers, subsampling, weighted sums, projections, views."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.canonical.arithmetic import normalise_arithmetic
from pipeline.canonical.graph import LINEAR, MATMUL, SOFTMAX, calls, shape
from pipeline.canonical.linear_attention import rewrite_weighted_sums
from pipeline.canonical.merge_projections import merge_projections
from pipeline.canonical.pool_mixer import rewrite_pool_mixers
from pipeline.canonical.simplify_views import simplify_views
from pipeline.canonical.split_projections import split_projections
from pipeline.canonical.subsample import rewrite_subsampling


def test_pool_mixer_becomes_two_scaled_terms(rewrite, ops):
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
            self.gamma = nn.Parameter(torch.randn(4))

        def forward(self, x: Tensor) -> Tensor:
            return x + (self.pool(x) - x) * self.gamma.view(-1, 1, 1)

    gm = rewrite(Mixer(), torch.randn(1, 4, 5, 5), rewrite_pool_mixers)
    assert ops(gm) == {"avg_pool2d": 1, "mul": 2, "add": 1}


def test_subsampling_pool_joins_the_depthwise_convolution(rewrite, ops):
    class Query(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.local = nn.Conv2d(4, 4, 3, 2, 1, groups=4)
            self.pool = nn.AvgPool2d(1, 2, 0)

        def forward(self, x: Tensor) -> Tensor:
            return self.local(x) + self.pool(x)

    assert ops(rewrite(Query(), torch.randn(1, 4, 6, 6), rewrite_subsampling)) == {"conv2d": 1}


def test_subsampling_pool_alone_becomes_strided_slices(rewrite, ops):
    gm = rewrite(nn.AvgPool2d(1, 2, 0), torch.randn(1, 4, 7, 6), rewrite_subsampling)
    assert ops(gm) == {"slice": 2}


@pytest.mark.parametrize("keep", [True, False])
def test_weighted_sum_becomes_a_product_with_the_softmax(keep, rewrite, ops):
    class Context(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores, keys = x[:, :1], x[:, 1:]
            return (keys * scores.softmax(-1)).sum(-1, keepdim=keep)

    gm = rewrite(Context(), torch.randn(1, 6, 4, 9), rewrite_weighted_sums)
    assert ops(gm)["mul"] == ops(gm)["sum"] == 0
    (product,), (softmax,) = calls(gm, MATMUL), calls(gm, SOFTMAX)
    assert softmax in product.args[0].all_input_nodes


class Fused(nn.Module):
    """Three parts of one projection, laid out as a function says."""

    def __init__(self, layout, width: int) -> None:
        super().__init__()
        self.layout, self.qkv = layout, nn.Linear(8, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.layout(self.qkv(x))
        return (q @ k.transpose(-2, -1)).softmax(-1) @ v


LAYOUTS = {
    "3 x heads x d": (lambda y: y.reshape(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0), 24),
    "heads x [q, k, v]": (
        lambda y: y.reshape(2, 5, 2, 14).permute(0, 2, 1, 3).split([4, 4, 6], dim=3),
        28,
    ),
    "chunks": (lambda y: y.chunk(3, dim=-1), 24),
    "heads x 3 x d": (lambda y: y.view(2, 5, 2, 3, 4).transpose(1, 2).unbind(3), 24),
    "d innermost in pairs": (lambda y: y.view(2, 5, 8, 3).unbind(-1), 24),
}


@pytest.mark.parametrize("layout, width", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_fused_projection_splits_in_every_layout(layout, width, rewrite, ops):
    gm = rewrite(Fused(layout, width), torch.randn(2, 5, 8), split_projections, simplify_views)
    paths = [node.meta["module_path"] for node in calls(gm, LINEAR)]
    assert sorted(paths) == ["qkv[0]", "qkv[1]", "qkv[2]"]
    assert ops(gm)["select"] == ops(gm)["slice"] == 0


def test_fused_convolution_splits_along_its_channels(rewrite, ops):
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Conv2d(4, 7, 1)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.proj(x).split([1, 3, 3], dim=1)
            return q * k + v

    gm = rewrite(Toy(), torch.randn(1, 4, 2, 9), split_projections, simplify_views)
    assert ops(gm) == {"conv2d": 3, "mul": 1, "add": 1}


def test_projection_read_as_a_whole_is_not_split(rewrite, ops):
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            y = self.proj(x)
            return y.relu().sum() + y[..., :3]

    assert ops(rewrite(Toy(), torch.randn(2, 4), split_projections))["linear"] == 1


def test_slices_of_positions_do_not_split_a_projection(rewrite, ops):
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.proj(x)[:, 0]

    assert ops(rewrite(Toy(), torch.randn(2, 3, 4), split_projections))["select"] == 1


class Heads(nn.Module):
    """Two heads on one input or on two tokens."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.tokens = (first, second)
        self.head, self.head_dist = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.tokens
        if first == second:
            y = x.mean(1)
            return self.head(y) + self.head_dist(y)
        return self.head(x[:, first]) + self.head_dist(x[:, second])


@pytest.mark.parametrize(
    "tokens, views",
    [((0, 0), {"mean"}), ((0, 1), {"slice", "reshape"}), ((0, 2), {"select", "cat"})],
    ids=["same input", "neighbours", "apart"],
)
def test_two_heads_become_one(tokens, views, rewrite, ops):
    gm = rewrite(Heads(*tokens), torch.randn(1, 4, 8), normalise_arithmetic, merge_projections)
    assert set(ops(gm)) == views | {"linear"}
    assert ops(gm)["linear"] == 1
    assert [node.meta["module_path"] for node in calls(gm, LINEAR)] == ["head"]


def test_chains_of_views_shrink(rewrite, ops):
    class Toy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.reshape(6, 4).reshape(2, 12).reshape(2, 3, 4)
            return y.permute(2, 0, 1).permute(1, 2, 0).unsqueeze(0).transpose(0, 1) + 1

    gm = rewrite(Toy(), torch.randn(2, 3, 4), simplify_views)
    assert ops(gm) == {"reshape": 1, "add": 1}
    assert shape(next(calls(gm))) == (2, 1, 3, 4)
