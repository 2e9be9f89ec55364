"""A small convolution and attention network, from quantizers to the library that ships."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm import relax

from tests.tvm_passes.aot.conftest import CLASSES, CLibrary
from tests.tvm_passes.aot.test_arm import emulate, runner  # noqa: F401  a fixture
from tests.tvm_passes.aot.test_arm import pytestmark as needs_emulator
from tests.tvm_passes.modules import Graph, build, float_value, operators
from tvm_passes.aot import LibraryInfo, build_library, resolve_target
from tvm_passes.errors import LoweringError
from tvm_passes.graph.data_movement import movement, moves_data
from tvm_passes.interpret import interpret
from tvm_passes.kernels.isa import ISAS
from tvm_passes.lowering.io import logits_scale
from tvm_passes.ops.base import TensorSpec, call
from tvm_passes.ops.qdq import NormalizeConfig
from tvm_passes.pipeline import LOWERING, lower, to_kernels, write_script
from tvm_passes.rewrite import main_bindings

SIDE, CHANNELS, HEADS = 12, 10, 2
TOKENS, WIDTH = (SIDE // 2) ** 2, CHANNELS // HEADS


def network() -> tvm.IRModule:
    """Padded stem, depthwise block, one attention layer with a position bias, and a head."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float64]:
        return rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))

    def constant(values: NDArray[Any]) -> relax.Expr:
        return relax.const(values.astype(np.float32))

    def body(graph: Graph, image: relax.Var) -> relax.Expr:
        emit, stored = graph.emit, graph.stored

        def linear(x: relax.Expr, outputs: int) -> relax.Var:
            inputs = TensorSpec.of(x).shape[-1]
            w = emit(relax.op.permute_dims(graph.weights(normal(outputs, inputs)), [1, 0]))
            return emit(
                relax.op.add(emit(relax.op.matmul(x, w)), constant(normal(outputs, 1)[:, 0]))
            )

        def norm(x: relax.Expr, axes: int) -> relax.Var:
            y = emit(call("normalize", NormalizeConfig(axes, 1e-5), x))
            return stored(y, 0.03, 2, name="norm")

        def heads(x: relax.Expr, index: int) -> relax.Var:
            part = relax.op.strided_slice(x, [2], [index * CHANNELS], [(index + 1) * CHANNELS])
            split = emit(relax.op.reshape(emit(part), (1, TOKENS, HEADS, WIDTH)))
            return emit(relax.op.permute_dims(split, [0, 2, 1, 3]))

        x = emit(relax.op.permute_dims(stored(image, 1.0, 0, "uint8"), [0, 3, 1, 2]))
        w = graph.weights(normal(CHANNELS, 3, 3, 3) / 60)
        x = emit(relax.op.nn.conv2d(x, w, strides=(2, 2), padding=(1, 1, 1, 1)))
        bias = np.zeros((1, CHANNELS, SIDE // 2, SIDE // 2))
        bias[:, :, 1:, 1:] -= normal(1, CHANNELS, 1, 1) * 5
        x = stored(emit(relax.op.add(x, constant(bias))), 2e-4, 0, "int16", name="stem")
        x = stored(graph.pointwise("silu", x), 0.03, -100, name="stem.act")
        w = graph.weights(normal(CHANNELS, 1, 3, 3))
        y = relax.op.nn.conv2d(x, w, padding=(1, 1, 1, 1), groups=CHANNELS)
        y = stored(graph.pointwise("relu", emit(y)), 0.02, -128, name="dw")
        x = stored(emit(relax.op.add(x, y)), 1e-4, 0, "int16", name="residual")
        x = emit(relax.op.permute_dims(x, [0, 2, 3, 1]))
        x = emit(relax.op.reshape(x, (1, TOKENS, CHANNELS)))
        qkv = stored(linear(norm(x, 1), 3 * CHANNELS), 0.05, 1, name="qkv")
        q, k, v = (heads(qkv, index) for index in range(3))
        scores = emit(relax.op.matmul(q, emit(relax.op.permute_dims(k, [0, 1, 3, 2]))))
        scores = emit(relax.op.add(scores, constant(normal(HEADS, TOKENS, TOKENS) * 6)))
        weights = emit(relax.op.nn.softmax(scores))
        weights = stored(weights, 2.0**-15, 0, "int16", name="softmax")
        y = stored(emit(relax.op.matmul(weights, v)), 0.02, 0, name="attend")
        y = emit(relax.op.permute_dims(y, [0, 2, 1, 3]))
        y = stored(linear(emit(relax.op.reshape(y, (1, TOKENS, CHANNELS))), CHANNELS), 0.02, 5)
        x = stored(emit(relax.op.add(x, y)), 1e-4, 0, "int16", name="residual")
        x = stored(emit(relax.op.mean(norm(x, 2), [1], False)), 0.01, 0, name="pool")
        return stored(linear(x, CLASSES), 1e-5, 0, "int32", name="head")

    return build([((1, SIDE, SIDE, 3), "float32")], body)


def pixels() -> NDArray[np.uint8]:
    """Black, white, and noise."""
    images = np.random.default_rng(1).integers(0, 256, (4, 1, SIDE, SIDE, 3), np.uint8)
    images[0], images[1] = 0, 255
    return images


@pytest.fixture(scope="module")
def imported() -> tvm.IRModule:
    return network()


@pytest.fixture(scope="module")
def lowered(imported: tvm.IRModule) -> tvm.IRModule:
    return lower(imported)


def test_integers_follow_the_floating_point_network(
    imported: tvm.IRModule, lowered: tvm.IRModule
) -> None:
    for image in pixels():
        expected = float_value(imported, image.astype(np.float32))
        got = interpret(lowered, image) * logits_scale(lowered)
        noise = np.sum((got - expected) ** 2) / np.sum((expected - expected.mean()) ** 2)
        assert 10 * np.log10(1 / noise) > 30  # dB


def test_views_vanish_and_operators_fuse(lowered: tvm.IRModule) -> None:
    """What still moves data: the slices of q, k and v, and the padding of the convolutions."""
    moves = [b.value for b in main_bindings(lowered) if moves_data(b.value)]
    names = [str(move.op.name).rpartition(".")[2] for move in moves]
    assert sorted(names) == ["pad", "pad", "strided_slice", "strided_slice", "strided_slice"]
    kernels = [name for name in operators(lowered) if name not in (*names, "reshape")]
    assert kernels == [
        *("fused", "fused"),
        *("layer_norm", "linear", "attention", "fused"),
        *("layer_norm", "mean", "linear"),
    ]


def test_data_movement_is_counted_before_and_after_layouts(lowered: tvm.IRModule) -> None:
    found = movement(lowered)
    assert found.before.operators > found.after.operators == 5
    assert found.before.written_bytes > found.after.written_bytes > 0


def build_for(target: str, lowered: tvm.IRModule, out: Path) -> Path:
    spec = resolve_target(target)
    selected = to_kernels(lowered, ISAS[spec.isa])
    build_library(selected, spec, LibraryInfo("net", logits_scale(lowered)), out)
    return out


@pytest.mark.parametrize("target", ["host", "x86-64"])
def test_the_library_computes_what_the_references_do(
    lowered: tvm.IRModule, target: str, tmp_path: Path
) -> None:
    library = CLibrary(build_for(target, lowered, tmp_path / "library.so"))
    handle = library.create()
    for image in pixels():
        np.testing.assert_array_equal(library.run(handle, image), interpret(lowered, image))
    library.lib.pocketvit_destroy(handle)


@needs_emulator
@pytest.mark.parametrize(
    ("target", "cpu"), [("aarch64-linux", "cortex-a76"), ("aarch64-linux-neon", "cortex-a53")]
)
def test_the_arm_library_computes_the_same(
    lowered: tvm.IRModule,
    target: str,
    cpu: str,
    runner: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    library = build_for(target, lowered, tmp_path / "library.so")
    done = emulate(runner, library, cpu, pixels(), tmp_path)
    assert done.returncode == 0, done.stderr
    logits = np.fromfile(tmp_path / "logits", np.int32).reshape(-1, 1, CLASSES)
    np.testing.assert_array_equal(logits, [interpret(lowered, image) for image in pixels()])


def test_every_phase_is_dumped_as_a_runnable_script(
    imported: tvm.IRModule, lowered: tvm.IRModule, tmp_path: Path
) -> None:
    seen: list[str] = []
    lower(imported, tmp_path, seen.append)
    assert seen == [phase.name for phase in LOWERING]
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [f"{i:02d}_{name}.py" for i, name in enumerate(seen)]
    mod = imported
    for phase, file in zip(LOWERING, files, strict=True):
        mod = phase.run(mod)
        if file in (files[0], files[len(files) // 2], files[-1]):  # the others are alike
            dumped = runpy.run_path(str(file))["Module"]
            tvm.ir.assert_structural_equal(dumped, mod)
    tvm.ir.assert_structural_equal(mod, lowered)


def test_kernels_are_dumped_as_a_runnable_script(lowered: tvm.IRModule, tmp_path: Path) -> None:
    selected = to_kernels(lowered, ISAS["neon-dotprod"], tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.name == f"{len(LOWERING)}_select_kernels_neon-dotprod.py"
    tvm.ir.assert_structural_equal(runpy.run_path(str(file))["Module"], selected)


def test_scripts_are_written_into_new_folders(lowered: tvm.IRModule, tmp_path: Path) -> None:
    write_script(lowered, tmp_path / "a" / "b" / "module.py")
    assert (tmp_path / "a" / "b" / "module.py").exists()


def test_an_operator_that_no_rule_knows_is_named() -> None:
    def body(graph: Graph, image: relax.Var) -> relax.Expr:
        x = graph.stored(image, 1.0, 0, "uint8", name="image")
        return graph.stored(graph.emit(relax.op.sqrt(x)), 0.1, 0, name="stages.0.sqrt")

    with pytest.raises(LoweringError, match="operator pocketvit.dequantize before tensor stages.0"):
        lower(build([((1, 2, 2, 3), "float32")], body))
