"""The machinery under every pass."""

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tests.tvm_passes.modules import assert_rewrites, build, operators
from tvm_passes.errors import LoweringError
from tvm_passes.lowering.quantized import is_call, is_integer_call
from tvm_passes.ops.base import TensorSpec
from tvm_passes.rewrite import Scope, rewrite_main, substitute


@I.ir_module
class Before:
    @R.function
    def main(x: R.Tensor((2, 3), "int8")):
        R.func_attr({"kept": 7})
        with R.dataflow():
            _unused = R.negative(x)
            a = R.add(x, x)
            b = R.negative(a)
            c = R.concat((b, a), axis=0)
            R.output(c)
        return c

    @R.function(private=True)
    def other(x: R.Tensor((2, 3), "int8")):
        return x


@I.ir_module
class After:
    @R.function
    def main(x: R.Tensor((2, 3), "int8")):
        R.func_attr({"kept": 7})
        with R.dataflow():
            a = R.multiply(x, x)
            b = R.abs(a)
            c = R.concat((b, a), axis=0)
            R.output(c)
        return c


def replace(scope: Scope, call: relax.Call) -> relax.Expr | None:
    """add(x, x) becomes multiply, negative(multiply) becomes abs: the second sees the first."""
    if is_call(call, "relax.add"):
        return relax.op.multiply(*call.args)
    if is_call(call, "relax.negative") and is_call(scope.producer(call.args[0]), "relax.multiply"):
        return relax.op.abs(call.args[0])
    return None


def test_a_rule_sees_its_arguments_rewritten_and_unused_bindings_go() -> None:
    after = After.clone()
    assert_rewrites(Before, after, replace)
    rewritten = rewrite_main(Before, replace)
    assert int(rewritten["main"].attrs["kept"]) == 7
    tvm.ir.assert_structural_equal(rewritten["main"], rewrite_main(After, replace)["main"])


def test_functions_that_main_does_not_call_are_removed() -> None:
    names = {name.name_hint for name, _ in rewrite_main(Before, replace).functions_items()}
    assert names == {"main"}


def test_a_rule_may_emit_several_bindings_or_none() -> None:
    def rule(scope: Scope, call: relax.Call) -> relax.Expr | None:
        if is_call(call, "relax.add"):
            return scope.emit(relax.op.abs(scope.emit(relax.op.negative(call.args[0]))))
        return call.args[0] if is_call(call, "relax.negative") else None

    assert operators(rewrite_main(Before, rule)) == ["negative", "abs", "concat"]


def test_parameters_and_the_result_can_be_replaced() -> None:
    wide = relax.Var("wide", relax.TensorType((2, 3), "int16"))
    mod = rewrite_main(
        Before,
        lambda scope, call: None,
        params=[wide],
        finish=lambda scope, result: scope.emit(relax.op.abs(result)),
    )
    assert TensorSpec.of(mod["main"].params[0]).dtype == "int16"
    assert TensorSpec.of(mod["main"].body.body) == TensorSpec((4, 3), "int16")
    assert operators(mod)[-1] == "abs"


def test_a_module_is_not_changed_in_place() -> None:
    copy = Before.clone()
    rewrite_main(Before, replace)
    tvm.ir.assert_structural_equal(Before, copy)


def test_elements_of_tuples_are_replaced_by_the_fields() -> None:
    x, y = (relax.Var(name, relax.TensorType((2,), "int8")) for name in "xy")
    pair = relax.Var("pair", relax.TupleType([x.ty, y.ty]))
    first = relax.TupleGetItem(pair, 1)
    assert substitute(first, {pair: relax.Tuple([x, y])}).same_as(y)
    renamed = relax.Var("renamed", pair.ty)
    moved = substitute(first, {pair: renamed})
    assert moved.tuple_value.same_as(renamed) and moved.index == 1


@pytest.mark.parametrize("message", ["too steep", "stages.1.fc: too steep"])
def test_the_message_of_a_rule_begins_with_the_tensors_name(message: str) -> None:
    before = build(
        [((2, 2), "int8")],
        lambda graph, x: graph.quantize(graph.dequantize(x, 1.0), 1.0, name="stages.1.fc"),
    )

    def rule(scope: Scope, call: relax.Call) -> relax.Expr | None:
        if is_integer_call(call, "quantize"):
            raise LoweringError(message)
        return None

    with pytest.raises(LoweringError, match="^stages.1.fc: too steep$"):
        rewrite_main(before, rule)


def test_a_rule_that_fails_is_all_that_is_heard_of(capfd: pytest.CaptureFixture[str]) -> None:
    def rule(scope: Scope, call: relax.Call) -> relax.Expr | None:
        raise LoweringError("too steep")

    with pytest.raises(LoweringError):
        rewrite_main(Before, rule)
    assert capfd.readouterr() == ("", "")  # TVM warns on its own of builders left half-way


def test_a_bound_constant_is_kept() -> None:
    mod = build(
        [((3,), "int8")],
        lambda graph, x: graph.emit(
            relax.op.add(x, graph.emit(relax.const(np.arange(3, dtype=np.int8))))
        ),
    )
    assert operators(rewrite_main(mod, lambda scope, call: None)) == ["add"]
