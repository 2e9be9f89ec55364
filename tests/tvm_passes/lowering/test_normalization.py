"""LayerNorm over the last axis, GroupNorm(1) over everything, and views around them."""

from typing import Any

import pytest
import tvm
from tvm import relax

from tests.tvm_passes.modules import Graph, apply_rules, assert_close, build, operators
from tests.tvm_passes.run_kernel import codes
from tvm_passes.lowering.normalization import lower_normalize
from tvm_passes.lowering.views import sink_dequantize
from tvm_passes.ops.base import call
from tvm_passes.ops.qdq import NormalizeConfig


def module(
    shape: tuple[int, ...], axes: int, dtype: str, *views: Any, out: tuple[Any, ...] = (0.03, 3)
) -> tvm.IRModule:
    """``quantize(normalize(views(x)))``."""

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        y: relax.Expr = graph.dequantize(x, 2e-4 if dtype == "int16" else 0.1, 0)
        for view in views:
            y = graph.emit(view(y))
        y = graph.emit(call("normalize", NormalizeConfig(axes, 1e-5), y))
        return graph.quantize(y, *out)

    return build([(shape, dtype)], body)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("out", [(0.03, 3), (2e-4, 0, "int16")])
def test_rows_of_the_last_axis(dtype: str, out: tuple[Any, ...]) -> None:
    before = module((1, 6, 48), 1, dtype, out=out)
    after = apply_rules(before, lower_normalize)
    assert operators(after) == ["layer_norm"]
    assert_close(before, after, codes(dtype, 1, 6, 48))


def test_rows_of_several_axes_are_flattened() -> None:
    before = module((3, 4, 5, 6), 2, "int8")
    after = apply_rules(before, lower_normalize)
    assert operators(after) == ["reshape", "layer_norm", "reshape"]
    assert_close(before, after, codes("int8", 3, 4, 5, 6))


def test_one_row_is_normalized_in_the_order_in_which_it_lies() -> None:
    """GroupNorm(1) of an NHWC map seen as NCHW: the permutation moves behind it."""
    before = module((1, 4, 5, 6), 3, "int8", lambda x: relax.op.permute_dims(x, [0, 3, 1, 2]))
    after = apply_rules(before, sink_dequantize, lower_normalize)
    names = operators(after)
    assert names.index("layer_norm") < names.index("permute_dims")
    assert_close(before, after, codes("int8", 1, 4, 5, 6))


def test_a_view_without_normal_form_stays_in_front() -> None:
    views = [
        lambda x: relax.op.permute_dims(x, [0, 2, 1]),
        lambda x: relax.op.reshape(x, (1, 8, 3)),  # cuts across permuted factors
    ]
    before = module((1, 4, 6), 2, "int8", *views)
    after = apply_rules(before, sink_dequantize, lower_normalize)
    assert_close(before, after, codes("int8", 1, 4, 6))
