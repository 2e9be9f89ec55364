"""The networks and what they cost in products."""

import pytest

from pipeline.errors import UserError
from scripts.benchmark.conv_net import integer_module
from scripts.benchmark.macs import count_operators
from scripts.benchmark.networks import CONV_NET, count_macs, load_network

CONV_NET_MACS = 56 * 56 * (9 * 16 * 32 + 32 * 64)


def test_products_of_the_float_network() -> None:
    assert count_macs(load_network(CONV_NET)) == CONV_NET_MACS


def test_products_of_the_integer_network() -> None:
    work = count_operators(integer_module())
    assert sum(each.macs for each in work) == CONV_NET_MACS
    assert work[-1].shape == (1, 56, 56, 64)


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(UserError, match="mobilevit_xxl is not in timm|'mobilevit_xxl' is not"):
        load_network("mobilevit_xxl")
