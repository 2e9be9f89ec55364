"""What is not integer-only is refused, by name."""

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import relax, te

from tests.tvm_passes.modules import Graph, build
from tvm_passes.errors import LoweringError
from tvm_passes.graph.verify import verify_integer
from tvm_passes.ops.base import call
from tvm_passes.ops.qdq import QuantizeLogConfig


def module(body: Callable[[Graph, relax.Var], relax.Expr]) -> tvm.IRModule:
    return build([((1, 4), "int8")], body)


def message(body: Callable[[Graph, relax.Var], relax.Expr]) -> str:
    with pytest.raises(LoweringError) as error:
        verify_integer(module(body))
    return str(error.value)


def test_an_integer_module_is_returned() -> None:
    mod = module(lambda graph, x: graph.emit(relax.op.reshape(x, (4,))))
    assert verify_integer(mod).same_as(mod)


def test_the_operator_and_the_tensor_behind_it_are_named() -> None:
    """The first float operator; the name is that of the quantizer that depends on it."""

    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        graph.quantize(x, 1.0, name="stages.0.unrelated")
        root = graph.emit(relax.op.sqrt(graph.emit(relax.op.astype(x, "float32"))))
        pair = graph.emit(relax.op.concat([root, root], 1))
        return graph.quantize(pair, 1.0, name="stages.1.act")

    assert message(body) == (
        "operator astype before tensor stages.1.act was not lowered to integers"
    )


def test_adalog_quantizers_name_a_tensor_too() -> None:
    def body(graph: Graph, x: relax.Var) -> relax.Expr:
        config = QuantizeLogConfig(20, 37, 4, 0.0, "attn.softmax")
        real = graph.emit(relax.op.astype(x, "float32"))
        return graph.emit(call("quantize_log", config, real, np.array(1, np.float32)))

    assert "before tensor attn.softmax" in message(body)


def test_without_a_quantizer_the_output_is_named() -> None:
    body = message(lambda graph, x: graph.dequantize(x, 1.0))
    assert body == "operator pocketvit.dequantize before tensor output was not lowered to integers"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_kernel_in_floating_point_is_refused(dtype: str) -> None:
    x = te.placeholder((4,), "int8", name="x")
    half = te.compute((4,), lambda i: (x[i].astype(dtype) * 0.5).astype("int8"), name="half")
    mod = module(lambda graph, x: x)
    mod["halve"] = te.create_prim_func([x, half])
    with pytest.raises(LoweringError, match=f"kernel halve computes in floating point: .*{dtype}"):
        verify_integer(mod)


def test_a_kernel_of_integers_passes() -> None:
    x = te.placeholder((4,), "int8", name="float_like_name")
    twice = te.compute((4,), lambda i: x[i].astype("int32") * 2, name="twice")
    mod = module(lambda graph, x: x)
    mod["twice"] = te.create_prim_func([x, twice])
    verify_integer(mod)
