"""Constants move into weights: batch norm, layer scale, norm affine, scales, preprocessing."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.canonical.absorb_downward import absorb_downward
from pipeline.canonical.absorb_upward import absorb_upward
from pipeline.canonical.arithmetic import normalise_arithmetic
from pipeline.canonical.graph import ADD, CONV, calls, constant
from pipeline.canonical.norms import split_batch_norm, split_norm_affine
from pipeline.canonical.simplify_views import simplify_views

AFFINE = (normalise_arithmetic, split_batch_norm, split_norm_affine)
IMAGE = (2, 4, 6, 6)


class Scale(nn.Module):
    """x * gamma, gamma of the given shape."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(sizes))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Shift(Scale):
    """x + gamma."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 1, bias=False),
        nn.Conv2d(4, 6, 3, stride=2, groups=2),
    ],
    ids=["3x3", "no bias", "grouped"],
)
def test_batch_norm_folds_into_the_convolution_before_it(conv, rewrite, ops):
    module = nn.Sequential(conv, nn.BatchNorm2d(6), nn.ReLU())
    assert ops(rewrite(module, torch.randn(IMAGE), *AFFINE, absorb_upward)) == {
        "conv2d": 1,
        "relu": 1,
    }


def test_batch_norm_folds_into_the_linear_layer_before_it(rewrite, ops):
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    assert ops(rewrite(module, torch.randn(3, 4), *AFFINE, absorb_upward)) == {"linear": 1}


def test_layer_scale_folds_through_views(rewrite, ops):
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.scale = nn.Conv2d(4, 6, 1), Scale(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.scale(self.conv(x).flatten(2).transpose(1, 2))

    gm = rewrite(Toy(), torch.randn(IMAGE), *AFFINE, absorb_upward)
    assert ops(gm) == {"conv2d": 1, "reshape": 1, "permute": 1}


def test_scale_stays_where_the_convolution_has_another_reader(rewrite, ops):
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.scale = nn.Conv2d(4, 4, 1), Scale(4, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return y + self.scale(y)

    assert ops(rewrite(Toy(), torch.randn(IMAGE), *AFFINE, absorb_upward))["mul"] == 1


def test_scale_that_differs_per_pixel_stays(rewrite, ops):
    module = nn.Sequential(nn.Conv2d(4, 4, 1), Scale(6, 6))
    assert ops(rewrite(module, torch.randn(IMAGE), *AFFINE, absorb_upward))["mul"] == 1


@pytest.mark.parametrize("late", [False, True], ids=["on q", "on the product"])
def test_attention_scale_folds_into_the_query(late, rewrite, ops):
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            q, k = (f(x).reshape(1, 5, 2, 4).transpose(1, 2) for f in (self.q, self.k))
            return 0.5 * (q @ k.mT) if late else (q * 0.5) @ k.mT

    gm = rewrite(Toy(), torch.randn(1, 5, 8), *AFFINE, absorb_upward)
    assert ops(gm)["mul"] == 0


def test_position_bias_and_mask_become_one_constant(rewrite, ops):
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias, self.mask = Shift(1, 2, 3, 3), Shift(1, 4, 1, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits = self.bias(x @ x.mT)
            return self.mask(logits.view(1, 4, 2, 3, 3)).view(4, 2, 3, 3).softmax(-1)

    gm = rewrite(Toy(), torch.randn(4, 2, 3, 5), *AFFINE, absorb_upward, simplify_views)
    assert ops(gm)["add"] == 1
    assert ops(gm)["reshape"] == 0


def test_layer_norm_affine_folds_into_all_its_linear_layers(rewrite, ops):
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.a, self.b = nn.LayerNorm(8), nn.Linear(8, 3), nn.Linear(8, 3, False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            return self.a(y[:, 0]) + self.b(y.mean(1))

    gm = rewrite(Toy(), torch.randn(1, 5, 8), *AFFINE, absorb_downward)
    assert ops(gm) == {"layer_norm": 1, "select": 1, "mean": 1, "linear": 2, "add": 1}


def test_layer_norm_affine_stays_where_something_else_reads_it(rewrite, ops):
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.a = nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            return y + self.a(y)

    gm = rewrite(Toy(), torch.randn(1, 5, 8), *AFFINE, absorb_downward)
    assert (ops(gm)["mul"], ops(gm)["add"]) == (1, 2)


def test_group_norm_affine_folds_into_the_convolution_after_it(rewrite, ops):
    module = nn.Sequential(nn.GroupNorm(1, 4), nn.Conv2d(4, 6, 1))
    gm = rewrite(module, torch.randn(IMAGE), *AFFINE, absorb_downward)
    assert ops(gm) == {"group_norm": 1, "conv2d": 1}


def test_lone_batch_norm_folds_into_the_head_behind_a_mean(rewrite, ops):
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(x.relu()).mean((2, 3)))

    gm = rewrite(Toy(), torch.randn(IMAGE), *AFFINE, absorb_upward, absorb_downward)
    assert ops(gm) == {"relu": 1, "mean": 1, "linear": 1}


def test_affine_passes_a_resize(rewrite, ops):
    module = nn.Sequential(
        nn.BatchNorm2d(4), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 2, 1)
    )
    gm = rewrite(module, torch.randn(IMAGE), *AFFINE, absorb_downward)
    assert ops(gm) == {"upsample_bilinear2d": 1, "conv2d": 1}


def test_shift_before_a_padded_convolution_becomes_a_map_with_uneven_border(rewrite, ops):
    module = nn.Sequential(Shift(4, 1, 1), nn.Conv2d(4, 2, 3, padding=1))
    gm = rewrite(module, torch.randn(IMAGE), *AFFINE, absorb_downward)
    assert ops(gm) == {"conv2d": 1, "add": 1}
    (conv,), (add,) = calls(gm, CONV), calls(gm, ADD)
    offset = constant(gm, add.args[1])
    assert conv.args[2] is None
    assert offset.shape == (1, 2, 6, 6)
    assert torch.allclose(offset[..., 1:5, 1:5], offset[..., 2:3, 2:3])
    assert not torch.allclose(offset[..., 0, 0], offset[..., 2, 2])


def test_shift_before_an_unpadded_grouped_convolution_becomes_its_bias(rewrite, ops):
    module = nn.Sequential(Shift(4, 1, 1), Scale(4, 1, 1), nn.Conv2d(4, 6, 3, stride=2, groups=2))
    gm = rewrite(module, torch.randn(IMAGE), *AFFINE, absorb_downward)
    assert ops(gm) == {"conv2d": 1}


def test_position_bias_moves_behind_a_talking_head(rewrite, ops):
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias, self.mix = Shift(1, 2, 5, 5), nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.mix(self.bias(x @ x.mT)).softmax(-1)

    gm = rewrite(Toy(), torch.randn(1, 2, 5, 3), *AFFINE, absorb_upward, absorb_downward)
    assert [n.target for n in calls(gm)].index(CONV) < [n.target for n in calls(gm)].index(ADD)
    assert ops(gm)["add"] == 1
