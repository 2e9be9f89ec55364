"""The registry of integer operators: configurations, types, and TVMScript."""

import json
from dataclasses import asdict, fields

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

import tvm_passes.ops  # noqa: F401  registers R.pocketvit
from tvm_passes.errors import LoweringError
from tvm_passes.kernels.registry import KERNELS
from tvm_passes.ops.base import OPERATORS, TensorSpec, call, config_of, operator_of
from tvm_passes.ops.gemm import Conv2dConfig
from tvm_passes.ops.pad import PadConfig

FORMATS = ("", "_log", "_twin")
FLOAT = {f"{way}quantize{name}" for way in ("", "de") for name in FORMATS}
FLOAT |= {"normalize", "pointwise", "float_dynamic_relu"}
GEOMETRY = {"strides": (2, 1), "dilation": (1, 3), "groups": 1}


def variable(*shape: int, dtype: str = "int8") -> relax.Var:
    return relax.Var("x", relax.TensorType(shape, dtype))


@pytest.mark.parametrize("name", OPERATORS)
def test_every_configuration_is_documented_and_frozen(name: str) -> None:
    config = OPERATORS[name].config
    assert config.__doc__ and config.__dataclass_params__.frozen
    assert fields(config)


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - FLOAT))
def test_every_integer_operator_has_a_kernel(name: str) -> None:
    import tvm_passes.kernels  # noqa: F401  registers them

    assert name in KERNELS


def test_a_call_carries_its_configuration() -> None:
    config = Conv2dConfig(1, -3, -128, 127, "int8", **GEOMETRY, row_classes=(0, 1, 1))
    weights = np.zeros((5, 3, 3, 4), np.int8)
    table = np.zeros((1, 5), np.int32)
    expr = call("conv2d", config, variable(1, 9, 9, 4), weights, table, table[0], table[0])
    assert config_of(expr) == config  # nested lists of JSON are tuples again
    assert operator_of(expr) is OPERATORS["conv2d"]
    assert json.loads(str(expr.args[-1].value)) == json.loads(json.dumps(asdict(config)))


def test_types_are_inferred_from_the_configuration() -> None:
    builder = relax.BlockBuilder()
    padded = builder.normalize(call("pad", PadConfig((1, 2), (0, 1), 7), variable(1, 4, 5, 3)))
    assert TensorSpec.of(padded) == TensorSpec((1, 5, 8, 3), "int8")


def test_other_expressions_are_no_integer_operators() -> None:
    x = variable(2, 2)
    assert operator_of(x) is None
    assert operator_of(relax.op.add(x, x)) is None
    with pytest.raises(LoweringError, match="relax.add.*is not an integer operator"):
        config_of(relax.op.add(x, x))


def test_operators_are_parsed_from_tvmscript() -> None:
    @I.ir_module
    class Written:
        @R.function
        def main(x: R.Tensor((1, 2, 2, 3), "uint8")) -> R.Tensor((1, 4, 3, 3), "uint8"):
            with R.dataflow():
                y = R.pocketvit.pad(x, R.str('{"after": [1, 1], "before": [1, 0], "value": 9}'))
                R.output(y)
            return y

    builder = relax.BlockBuilder()
    x = variable(1, 2, 2, 3, dtype="uint8")
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(call("pad", PadConfig((1, 0), (1, 1), 9), x))
        builder.emit_func_output(y)
    tvm.ir.assert_structural_equal(Written, builder.get())


def test_what_is_printed_can_be_parsed() -> None:
    builder = relax.BlockBuilder()
    x = variable(1, 2, 2, 3)
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(call("pad", PadConfig((1, 0), (1, 1), 9), x))
        builder.emit_func_output(y)
    mod = builder.get()
    tvm.ir.assert_structural_equal(tvm.script.from_source(mod.script()), mod)
