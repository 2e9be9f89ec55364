"""Rewrites of channels: dynamic ReLU, groups, repeated maps, shuffles."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.canonical.absorb_upward import absorb_upward
from pipeline.canonical.arithmetic import normalise_arithmetic
from pipeline.canonical.dynamic_relu import rewrite_dynamic_relu
from pipeline.canonical.fold_shuffles import fold_shuffles
from pipeline.canonical.graph import CONV, calls
from pipeline.canonical.group_convolutions import repeat_depthwise, ungroup_pointwise
from pipeline.canonical.simplify_views import simplify_views
from pipeline.canonical.split_projections import split_projections
from pipeline.models.mobile_former.attention import DynamicReLU, Hyper
from pipeline.models.mobile_former.blocks import ChannelShuffle


class Gated(nn.Module):
    """Layers with a dynamic ReLU in between, whose gates come from the mean of the input."""

    def __init__(self, before: nn.Module, after: nn.Module, channels: int) -> None:
        super().__init__()
        self.before, self.after, self.hyper = before, after, Hyper(8, channels)
        self.act = DynamicReLU()

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.mean((2, 3))[:, None]
        result: Tensor = self.after(self.act(self.before(x), self.hyper(tokens)))
        return result


X = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
DYNAMIC = (normalise_arithmetic, rewrite_dynamic_relu)


def test_dynamic_relu_becomes_one_operator(rewrite, ops):
    gm = rewrite(Gated(nn.Identity(), nn.Identity(), 8), X, *DYNAMIC)
    assert ops(gm)["dynamic_relu"] == 1
    assert ops(gm)["maximum"] == ops(gm)["mul"] == ops(gm)["add"] == 0


def test_a_maximum_of_other_slopes_stays(rewrite, ops):
    class Other(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            gate = nn.functional.hardsigmoid(x)
            return torch.maximum(x * (2 * gate), x * (3 * gate - 1))

    assert ops(rewrite(Other(), X, *DYNAMIC))["maximum"] == 1


def test_grouped_pointwise_convolution_becomes_dense(rewrite):
    gm = rewrite(nn.Conv2d(8, 12, 1, groups=4), X, ungroup_pointwise)
    (conv,) = calls(gm, CONV)
    assert conv.args[6] == 1
    assert conv.args[1].meta["val"].shape == (12, 8, 1, 1)


def test_other_groups_stay(rewrite):
    module = nn.Sequential(nn.Conv2d(8, 8, 1, groups=8), nn.Conv2d(8, 8, 3, groups=2))
    gm = rewrite(module, X, ungroup_pointwise)
    assert [conv.args[6] for conv in calls(gm, CONV)] == [8, 2]


def test_outputs_of_a_depthwise_convolution_are_put_channel_beside_channel(rewrite, ops):
    gm = rewrite(nn.Conv2d(8, 24, 3, 2, 1, groups=8), X, repeat_depthwise)
    (conv,) = calls(gm, CONV)
    assert conv.args[6] == 24 and conv.args[1].meta["val"].shape == (24, 1, 3, 3)
    assert ops(gm) == {"repeat": 1, "conv2d": 1, "reshape": 2, "permute": 1}


def depthwise(factor: int = 3) -> nn.Module:
    return nn.Conv2d(8, 8 * factor, 3, padding=1, groups=8)


FOLDED = {
    "after a convolution": nn.Sequential(nn.Conv2d(8, 12, 1), ChannelShuffle(4)),
    "before a convolution": nn.Sequential(nn.ReLU(), ChannelShuffle(4), nn.Conv2d(8, 12, 3)),
    "through a clamp": nn.Sequential(depthwise(), nn.ReLU6(), nn.Conv2d(24, 4, 1)),
    "through a dynamic ReLU": Gated(depthwise(), nn.Conv2d(24, 4, 1), 24),
    "two in a row": nn.Sequential(
        depthwise(), nn.ReLU6(), ChannelShuffle(8), nn.Conv2d(24, 4, 1, groups=4)
    ),
    "of groups": nn.Sequential(nn.Conv2d(8, 8, 1, groups=4), ChannelShuffle(4), depthwise(1)),
}


@pytest.mark.parametrize("module", FOLDED.values(), ids=FOLDED)
def test_shuffles_move_into_weights(module, rewrite, ops):
    before = (*DYNAMIC, ungroup_pointwise, split_projections, repeat_depthwise, simplify_views)
    counts = ops(rewrite(module, X, *before, fold_shuffles, simplify_views))
    assert counts["permute"] == 0


def test_a_shuffle_that_is_read_in_other_shapes_moves_too(rewrite, ops):
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.shuffle = nn.Conv2d(8, 12, 1), ChannelShuffle(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.shuffle(self.conv(x))
            return y * y.flatten(2).mean(2)[..., None, None]

    gm = rewrite(Flat(), X, simplify_views, fold_shuffles, simplify_views)
    assert ops(gm)["permute"] == 0


def test_a_shuffle_that_a_sum_reads_stays(rewrite, ops):
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + ChannelShuffle(4)(x)

    assert ops(rewrite(Sum(), X, fold_shuffles))["permute"] == 1


@pytest.mark.parametrize("constant", [False, True])
def test_scale_of_scores_moves_into_keys_or_a_constant_query(constant, rewrite, ops):
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.keys = nn.Linear(4, 6)
            self.query = nn.Parameter(torch.randn(1, 4, 6))

        def forward(self, x: Tensor) -> Tensor:
            if constant:
                return self.query @ x.flatten(2)[:, :6] * 0.25
            return x.flatten(2)[..., :6] @ self.keys(x[:, 0]).transpose(1, 2) * 0.25

    gm = rewrite(Scores(), X, normalise_arithmetic, absorb_upward)
    assert ops(gm)["mul"] == 0
