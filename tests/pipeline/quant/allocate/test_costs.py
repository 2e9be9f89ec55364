"""Bits that weights take."""

import pytest
from torch import fx

from pipeline.quant.allocate.costs import averaged_bits, stored_bits, weight_count
from tests.pipeline.quant.conftest import Builder, aten


@pytest.fixture
def product(builder: Builder) -> fx.Node:
    """A linear of 5 x 8 weights."""
    return builder.linear(builder.tokens(builder.stem()), 5)


@pytest.mark.parametrize(("width", "bits"), [(2, 2), (6, 6), (7, 8), (8, 8), (16, 8)])
def test_codes_of_more_than_six_bits_are_stored_in_bytes(product, width: int, bits: int) -> None:
    assert stored_bits([product], width, per_channel=True) == 40 * bits + 5 * 32
    assert stored_bits([product], width, per_channel=False) == 40 * bits + 32


@pytest.mark.parametrize(("width", "bits"), [(2, 2), (7, 7), (8, 8), (16, 12)])
def test_wide_activations_count_in_the_average(product, width: int, bits: int) -> None:
    assert averaged_bits([product], width) == 40 * bits


def test_products_without_weights_cost_nothing(builder: Builder) -> None:
    x = builder.tokens(builder.stem())
    product = builder.call(aten.matmul.default, x, builder.call(aten.permute.default, x, [0, 2, 1]))
    assert weight_count([product]) == stored_bits([product], 8, True) == 0


def test_depthwise_codes_are_stored_in_bytes(builder: Builder) -> None:
    weight = builder.random_constant(8, 1, 3, 3)
    args = (builder.stem(), weight, None, [1, 1], [1, 1], [1, 1], 8)
    depthwise = builder.graph.call_function(aten.conv2d.default, args)
    assert stored_bits([depthwise], 2, per_channel=False) == 72 * 8 + 32
