"""Reading the Relax main function."""

from collections.abc import Callable

import numpy as np
import pytest
from tvm import IRModule, relax, te

from tvm_passes.aot.program import linearize
from tvm_passes.errors import LoweringError

Emit = Callable[[relax.BlockBuilder, relax.Var], relax.Expr]


def module(emit: Emit, shape: tuple[int, ...] = (1, 4, 4, 3)) -> IRModule:
    """A module whose main returns what ``emit`` makes of the image."""
    builder = relax.BlockBuilder()
    image = relax.Var("image", relax.TensorType(shape, "uint8"))
    with builder.function("main", [image]):
        with builder.dataflow():
            result = builder.emit_output(emit(builder, image))
        builder.emit_func_output(result)
    return builder.get()


def sum_rows(x: te.Tensor, bias: te.Tensor) -> te.Tensor:
    """Int32 sums of each row of a matrix plus a bias."""
    k = te.reduce_axis((0, x.shape[1]))
    sums = te.compute((1, x.shape[0]), lambda n, i: te.sum(x[i, k].astype("int32"), axis=k))
    return te.compute(sums.shape, lambda n, i: sums[n, i] + bias[i].astype("int32"))


def test_a_reshape_is_a_view_of_the_same_buffer(network: IRModule) -> None:
    program = linearize(network)
    stem, tokens = program.layers[0].args[-1], program.layers[1].args[0]
    assert stem != tokens
    assert program.tensors[stem].buffer == program.tensors[tokens].buffer
    assert program.tensors[tokens].spec.shape == (1, 64, 8)


def test_a_buffer_lives_until_the_last_reader_of_any_view(network: IRModule) -> None:
    program = linearize(network)
    stem = program.buffers[program.tensors[program.layers[0].args[-1]].buffer]
    assert (stem.first, stem.last) == (0, 2)  # the residual add reads the reshaped stem


def test_equal_constants_are_stored_once(network: IRModule) -> None:
    program = linearize(network)
    assert program.layers[2].args[2] == program.layers[4].args[2]  # the two adds' bias
    assert len(program.constants) == 5


def test_equal_bytes_of_another_dtype_share_their_place() -> None:
    zeros = relax.const(np.zeros(16, np.int8)), relax.const(np.zeros(4, np.int32))

    def emit(builder: relax.BlockBuilder, image: relax.Var) -> relax.Expr:
        rows = builder.emit(relax.op.reshape(image, (16, 3)))
        logits = builder.emit_te(sum_rows, rows, zeros[0])
        return builder.emit_te(lambda a, b: te.compute(a.shape, lambda n, i: a[n, i] + b[0]),
                               logits, zeros[1])  # fmt: skip

    program = linearize(module(emit))
    assert len(program.constants) == 1
    dtypes = [tensor.spec.dtype for tensor in program.tensors if tensor.space == "params"]
    assert dtypes == ["int8", "int32"]


def test_a_named_variable_names_its_layer(network: IRModule) -> None:
    builder = relax.BlockBuilder()
    image = relax.Var("image", relax.TensorType((1, 4, 4, 3), "uint8"))
    with builder.function("main", [image]):
        with builder.dataflow():
            rows = builder.emit(relax.op.reshape(image, (16, 3)))
            call = builder.call_te(sum_rows, rows, relax.const(np.zeros(16, np.int8)))
            result = builder.emit_output(builder.emit(call, "stages_0_norm"))
        builder.emit_func_output(result)
    assert [layer.name for layer in linearize(builder.get()).layers] == ["stages_0_norm"]


@pytest.mark.parametrize(
    ("emit", "message"),
    [
        (lambda b, x: b.emit(relax.op.astype(x, "int32")), "relax.astype"),
        (lambda b, x: b.emit(relax.op.reshape(x, (1, 48))), "output"),
        (lambda b, x: relax.const(np.zeros((1, 3), np.int32)), "no kernel"),
    ],
    ids=["operator", "output type", "no layer"],
)
def test_anything_else_in_main_is_refused_by_name(emit: Emit, message: str) -> None:
    with pytest.raises(LoweringError, match=message):
        linearize(module(emit))


def test_an_image_of_another_layout_is_refused() -> None:
    mod = module(lambda b, x: b.emit(relax.op.reshape(x, (1, 48))), (1, 3, 4, 4))
    with pytest.raises(LoweringError, match=r"\(1, H, W, 3\)"):
        linearize(mod)
