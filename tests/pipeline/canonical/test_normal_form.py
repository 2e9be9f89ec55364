"""One way to write each operator: functional, identities, views, arguments, arithmetic."""

import operator

import pytest
import torch
from torch import Tensor, nn

from pipeline.canonical.arithmetic import normalise_arithmetic
from pipeline.canonical.functional import make_functional
from pipeline.canonical.graph import CONV, calls, constant
from pipeline.errors import UserError


def module_of(function, **children):
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, child in children.items():
                setattr(self, name, child)

        def forward(self, x: Tensor) -> Tensor:
            return function(self, x)

    return Toy()


def test_in_place_result_is_read_by_later_users_of_the_input(rewrite, ops):
    def function(_, x):
        y = x * 2
        z = y + 1  # reads y before it is changed
        y.relu_()
        return y + z

    gm = rewrite(module_of(function), torch.randn(2, 3), make_functional, normal=False)
    assert "relu_" not in ops(gm)
    assert ops(gm)["relu"] == 1


def test_in_place_change_through_a_view_is_refused(rewrite):
    def function(_, x):
        y = x * 2
        y[:, 0].relu_()
        return y + 1

    with pytest.raises(UserError, match="in place"):
        rewrite(module_of(function), torch.randn(2, 3), make_functional, normal=False)


def test_identities_vanish(rewrite, ops):
    def function(_, x):
        y = nn.functional.dropout(x, 0.5, False).clone().contiguous().reshape(x.shape)
        return nn.functional.pad(y, (0, 0)).roll(0, 1) + 1

    assert set(ops(rewrite(module_of(function), torch.randn(2, 3)))) == {"add"}


VIEWS = {
    "transpose": lambda _, x: x.transpose(1, -1),
    "flatten": lambda _, x: x.flatten(1),
    "unsqueeze": lambda _, x: x.unsqueeze(-1).squeeze(0),
    "unbind": lambda _, x: x.unbind(1)[1] + x.unbind(1)[-1],
    "split": lambda _, x: torch.split(x, [1, 3], dim=2)[1],
    "split by size": lambda _, x: torch.split(x, 3, dim=-1)[1],
    "chunk": lambda _, x: x.chunk(2, dim=1)[1],
    "narrow": lambda _, x: x.narrow(2, 1, 2),
    "negative slice": lambda _, x: x[:, -2:, ::2],
    "pad": lambda _, x: nn.functional.pad(x, (1, 0, 0, 2)),
    "t": lambda _, x: x[0].t(),
}


@pytest.mark.parametrize("function", VIEWS.values(), ids=VIEWS.keys())
def test_views_become_the_canonical_ones(function, rewrite, ops):
    gm = rewrite(module_of(function), torch.randn(1, 3, 4))
    canonical = {"reshape", "permute", "slice", "select", "constant_pad_nd", "add"}
    assert set(ops(gm)) <= canonical
    assert all(node.target is not operator.getitem for node in calls(gm))


def test_slices_are_written_with_positive_bounds(rewrite):
    gm = rewrite(module_of(lambda _, x: x[:, -2:]), torch.randn(1, 5))
    (node,) = (n for n in calls(gm) if "slice" in str(n.target))
    assert node.args[1:] == (1, 3, 5, 1)


def test_convolution_arguments_are_spelled_out(rewrite):
    gm = rewrite(nn.Conv2d(3, 4, 3, padding=1), torch.randn(1, 3, 5, 5))
    (conv,) = calls(gm, CONV)
    assert conv.args[3:] == ([1, 1], [1, 1], [1, 1], 1)


ARITHMETIC = {
    "subtract": lambda _, x: x - x.relu(),
    "subtract a number": lambda _, x: x - 2.5,
    "from a number": lambda _, x: 1.0 - x,
    "divide": lambda _, x: (x + x.relu()) / 2,
    "negate": lambda _, x: -x,
    "scaled subtraction": lambda _, x: torch.sub(x, x.relu(), alpha=2),
    "number first": lambda _, x: 3 * x,
    "expand": lambda _, x: x * x.mean(2, keepdim=True).expand_as(x),
}


@pytest.mark.parametrize("function", ARITHMETIC.values(), ids=ARITHMETIC.keys())
def test_arithmetic_becomes_add_and_mul(function, rewrite, ops):
    gm = rewrite(module_of(function), torch.randn(1, 3, 4), normalise_arithmetic)
    assert set(ops(gm)) <= {"add", "mul", "relu", "mean"}
    for node in calls(gm):
        if len(node.all_input_nodes) == 2:
            assert constant(gm, node.args[0]) is None


def test_relu6_and_global_pool_get_their_canonical_names(rewrite, ops):
    module = nn.Sequential(nn.ReLU6(), nn.AdaptiveAvgPool2d(1))
    gm = rewrite(module, 4 * torch.randn(1, 3, 4, 4), normalise_arithmetic)
    assert set(ops(gm)) == {"hardtanh", "mean"}


@pytest.mark.parametrize("align", [False, True])
def test_resize_by_a_factor_becomes_a_resize_to_a_size(align, rewrite):
    module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align)
    gm = rewrite(module, torch.randn(1, 3, 4, 4), normalise_arithmetic)
    (node,) = calls(gm)
    assert node.args[1:] == ([8, 8], align, None)


def test_bias_table_lookup_is_computed_once(rewrite, ops):
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(5, 2))
            self.register_buffer("index", torch.tensor([[0, 1], [4, 2]]))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.table[self.index.view(-1)].view(2, 2, 2).permute(2, 0, 1).unsqueeze(0)

    assert set(ops(rewrite(Table(), torch.randn(1, 2, 2, 2)))) == {"add"}


def test_neighbouring_tokens_in_a_cat_become_one_constant(rewrite):
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Parameter(torch.randn(1, 1, 3))
            self.second = nn.Parameter(torch.randn(1, 1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.first.expand(1, -1, -1), self.second, x], 1)

    gm = rewrite(Tokens(), torch.randn(1, 2, 3))
    (cat,) = calls(gm)
    assert len(cat.args[0]) == 2


def test_views_keep_their_module_path(rewrite):
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.transpose(0, 1)

    gm = rewrite(module_of(lambda m, x: m.inner(x), inner=Inner()), torch.randn(2, 3))
    assert [node.meta["module_path"] for node in calls(gm)] == ["inner"]
