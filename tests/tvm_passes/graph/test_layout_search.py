"""Layouts are chosen so that little is moved, and any of them would do."""

from collections.abc import Callable
from math import inf
from random import Random

from hypothesis import given, settings
from tvm import relax

from tests.tvm_passes.graph.networks import REQUANTIZE, assert_same, collapsed, linear, module
from tests.tvm_passes.graph.random_networks import SEEDS, Draw
from tests.tvm_passes.modules import operators
from tvm_passes.graph import layout
from tvm_passes.graph.layout_search import LayoutSearch
from tvm_passes.lowering.quantized import is_call
from tvm_passes.ops.base import TensorSpec, call
from tvm_passes.ops.pad import PadConfig
from tvm_passes.rewrite import main_bindings


def test_data_are_moved_where_they_are_narrow() -> None:
    """A view between two linears goes to the side with fewer channels, also below an activation."""

    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        padded = emit(call("pad", PadConfig((0, 0), (0, 0), 0), x))
        wide = emit(linear(padded, 64))
        active = emit(call("requantize", REQUANTIZE, wide))
        turned = emit(relax.op.permute_dims(active, [0, 2, 1, 3]))
        narrow = emit(linear(turned, 8))
        return emit(call("pad", PadConfig((0, 0), (0, 0), 0), narrow))

    after = collapsed(module([(1, 8, 8, 16)], body))
    moved = [b for b in main_bindings(after) if is_call(b.value, "relax.permute_dims")]
    assert [TensorSpec.of(binding.var).shape[-1] for binding in moved] == [8]


def test_readers_share_what_is_moved() -> None:
    """Three linears read one turned map; the sum with the map itself keeps it where it is."""

    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        first = emit(call("pad", PadConfig((0, 0), (0, 0), 0), x))
        parts = []
        for _ in range(3):
            turned = emit(relax.op.permute_dims(first, [0, 2, 1, 3]))
            parts.append(emit(call("pad", PadConfig((0, 0), (0, 0), 0), turned)))
        return emit(relax.op.concat(parts, 1))

    after = collapsed(module([(1, 4, 5, 6)], body))
    assert operators(after).count("permute_dims") == 1


@settings(deadline=None)
@given(SEEDS)
def test_results_do_not_depend_on_the_layouts(seed: int) -> None:
    """Any layouts that the operators accept will do, not only those that the search likes."""
    draw = Draw(Random(seed))
    mod = draw.network()
    network = layout.Graph(mod)
    search = LayoutSearch(network.nodes)
    for _ in range(3):
        index = draw.random.randrange(len(network.nodes))
        fitting = network.nodes[index].space.fitting(draw.layout(network.nodes[index].space.shape))
        before = list(search.layouts)
        if fitting is not None:
            search.spread(index, fitting)
        if search.total() == inf:
            search.layouts[:] = before
    assert_same(mod, layout.rebuild(mod, network, search))
