"""Means, average pooling and bilinear resizing."""

from collections.abc import Callable
from typing import Any

import pytest
import tvm
from tvm import relax

from tests.tvm_passes.modules import Graph, apply_rules, assert_close, build, operators
from tests.tvm_passes.run_kernel import codes
from tvm_passes.errors import LoweringError
from tvm_passes.lowering.pooling import lower_avg_pool2d, lower_mean, lower_resize

RULES = (lower_mean, lower_avg_pool2d, lower_resize)
SHAPE = (1, 5, 6, 7)


def module(operator: Callable[[relax.Expr], relax.Expr], dtype: str = "int8") -> tvm.IRModule:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        real = graph.dequantize(x, 0.1 if dtype == "int8" else 4e-4, 7 if dtype == "int8" else 0)
        return graph.quantize(graph.emit(operator(real)), 0.04, 3, name="pool")

    return build([(SHAPE, dtype)], body)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("axes", [[2, 3], [1], [3]])
@pytest.mark.parametrize("keepdims", [True, False])
def test_means(dtype: str, axes: list[int], keepdims: bool) -> None:
    before = module(lambda x: relax.op.mean(x, axes, keepdims), dtype)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["mean"]
    assert_close(before, after, codes(dtype, *SHAPE))


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize(
    "attrs",
    [
        {"pool_size": (2, 2), "strides": (2, 2)},
        {"pool_size": (3, 3), "padding": (1, 1)},
        {"pool_size": (3, 2), "strides": (1, 2), "padding": (1, 0)},
    ],
)
def test_average_pooling(dtype: str, attrs: dict[str, Any]) -> None:
    before = module(lambda x: relax.op.nn.avg_pool2d(x, **attrs), dtype)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["permute_dims", "avg_pool2d", "permute_dims"]
    assert_close(before, after, codes(dtype, *SHAPE))


@pytest.mark.parametrize(
    "attrs",
    [
        {"pool_size": (2, 2), "ceil_mode": True},
        {"pool_size": (3, 3), "padding": (1, 1), "count_include_pad": True},
        {"pool_size": (2, 2), "padding": (0, 0, 1, 1)},
    ],
)
def test_other_pooling_is_refused(attrs: dict[str, Any]) -> None:
    with pytest.raises(LoweringError, match="pool: avg_pool2d with"):
        apply_rules(module(lambda x: relax.op.nn.avg_pool2d(x, **attrs)), *RULES)


def resize(size: tuple[int, int], **attrs: Any) -> tvm.IRModule:
    return module(
        lambda x: relax.op.image.resize2d(x, relax.ShapeExpr(size), layout="NCHW", **attrs)
    )


@pytest.mark.parametrize("mode", ["half_pixel", "align_corners"])
@pytest.mark.parametrize("size", [(12, 14), (9, 5)])
def test_resizing(mode: str, size: tuple[int, int]) -> None:
    before = resize(size, method="linear", coordinate_transformation_mode=mode)
    after = apply_rules(before, *RULES)
    assert operators(after) == ["permute_dims", "resize_bilinear", "permute_dims"]
    assert_close(before, after, codes("int8", *SHAPE))


@pytest.mark.parametrize(
    "attrs",
    [
        {"method": "nearest_neighbor"},
        {"method": "linear", "coordinate_transformation_mode": "asymmetric"},
    ],
)
def test_other_resizing_is_refused(attrs: dict[str, Any]) -> None:
    with pytest.raises(LoweringError, match="pool: only bilinear"):
        apply_rules(resize((12, 14), **attrs), *RULES)
