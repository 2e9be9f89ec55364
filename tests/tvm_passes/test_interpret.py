"""Integer modules run by the references."""

import numpy as np
import pytest
from tvm import relax

from tests.tvm_passes.modules import build
from tests.tvm_passes.run_kernel import codes
from tvm_passes.errors import LoweringError
from tvm_passes.interpret import interpret
from tvm_passes.ops.base import call
from tvm_passes.ops.pad import PadConfig

X = codes("int8", 1, 3, 4, 5)


def test_operators_run_by_their_references_and_constants_are_taken_along() -> None:
    config = PadConfig((1, 0), (0, 1), 7)

    def body(graph, x):
        padded = graph.emit(call("pad", config, x))
        constant = call("pad", config, codes("int8", 1, 1, 4, 5))
        return graph.emit(relax.op.concat([padded, graph.emit(constant)], 1))

    widths = [(0, 0), (1, 0), (0, 1), (0, 0)]
    parts = X, codes("int8", 1, 1, 4, 5)
    expected = [np.pad(part, widths, constant_values=7) for part in parts]
    got = interpret(build([(X.shape, "int8")], body), X)
    np.testing.assert_array_equal(got, np.concatenate(expected, 1))
    assert got.flags.c_contiguous


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (lambda x: relax.op.reshape(x, (12, 5)), X.reshape(12, 5)),
        (lambda x: relax.op.permute_dims(x, [0, 3, 1, 2]), X.transpose(0, 3, 1, 2)),
        (lambda x: relax.op.permute_dims(x), X.transpose()),
        (lambda x: relax.op.strided_slice(x, [2], [1], [3]), X[:, :, 1:3]),
        (lambda x: relax.op.strided_slice(x, [1, 3], [0, 1], [3, 99], [2, 2]), X[:, ::2, :, 1::2]),
    ],
)
def test_views(view, expected) -> None:
    got = interpret(build([(X.shape, "int8")], lambda graph, x: graph.emit(view(x))), X)
    np.testing.assert_array_equal(got, expected)


def test_several_inputs_are_taken_in_order() -> None:
    mod = build(
        [((1, 2), "int8"), ((1, 3), "int8")],
        lambda graph, x, y: graph.emit(relax.op.concat([y, x], 1)),
    )
    x, y = codes("int8", 1, 2), codes("int8", 1, 3)
    np.testing.assert_array_equal(interpret(mod, x, y), np.concatenate([y, x], 1))
    with pytest.raises(ValueError, match="shorter"):
        interpret(mod, x)


def test_an_operator_without_a_reference_is_named() -> None:
    mod = build([((2, 2), "int8")], lambda graph, x: graph.emit(relax.op.abs(x)))
    with pytest.raises(LoweringError, match="no reference for operator relax.abs"):
        interpret(mod, codes("int8", 2, 2))
