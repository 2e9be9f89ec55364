"""A small network with every number format, from quantizers to the library that ships."""

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
from tests.tvm_passes.modules import Graph, build, configs, float_value, operators
from tests.tvm_passes.test_pipeline import (
    CHANNELS,
    HEADS,
    SIDE,
    TOKENS,
    WIDTH,
    build_for,
    pixels,
)
from tvm_passes.interpret import interpret
from tvm_passes.lowering.io import logits_scale
from tvm_passes.ops.base import TensorSpec, call
from tvm_passes.ops.qdq import (
    DequantizeLogConfig,
    DequantizeTwinConfig,
    NormalizeConfig,
    QuantizeLogConfig,
    QuantizeTwinConfig,
)
from tvm_passes.pipeline import lower

HIDDEN = 24
FACTORS = 2.0 ** np.linspace(-1, 1, CHANNELS)


def network() -> tvm.IRModule:
    """Factors behind an activation, a sum and a norm; log2 and twin attention; a twin MLP."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float64]:
        return rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))

    def body(graph: Graph, image: relax.Var) -> relax.Expr:
        emit, stored = graph.emit, graph.stored

        def scaled(x: relax.Expr, factors: NDArray[Any], *form: Any, name: str) -> relax.Var:
            factor = relax.const(factors.astype(np.float32))
            return stored(emit(relax.op.multiply(x, factor)), *form, name=name)

        def convert(x: relax.Expr, scale: float, write: Any, read: Any, way: str) -> relax.Var:
            step = np.array(scale, np.float32)
            inner = emit(call(f"quantize_{way}", write, x, step))
            return emit(call(f"dequantize_{way}", read, inner, step))

        def linear(x: relax.Expr, outputs: int) -> relax.Var:
            inputs = TensorSpec.of(x).shape[-1]
            w = emit(relax.op.permute_dims(graph.weights(normal(outputs, inputs)), [1, 0]))
            return emit(relax.op.matmul(x, w))

        def log2(x: relax.Expr) -> relax.Var:
            form = (1, 1, 4, 0.0)
            return convert(
                x, 1.0, QuantizeLogConfig(*form, "log2"), DequantizeLogConfig(*form), "log"
            )

        def twin(x: relax.Expr, scale: float, m: int, signed: bool, name: str) -> relax.Var:
            form = (m, 8, signed)
            write, read = QuantizeTwinConfig(*form, name), DequantizeTwinConfig(*form)
            return convert(x, scale, write, read, "twin")

        def heads(x: relax.Expr, index: int) -> relax.Var:
            part = relax.op.strided_slice(x, [2], [index * CHANNELS], [(index + 1) * CHANNELS])
            split = emit(relax.op.reshape(emit(part), (1, TOKENS, HEADS, WIDTH)))
            return emit(relax.op.permute_dims(split, [0, 2, 1, 3]))

        def attend(x: relax.Expr, weigh: Any) -> relax.Var:
            y = emit(call("normalize", NormalizeConfig(1, 1e-5), x))
            y = scaled(y, FACTORS, 0.04, 2, name="norm")
            qkv = stored(linear(y, 3 * CHANNELS), 0.05, 0, name="qkv")
            q, k, v = (heads(qkv, index) for index in range(3))
            scores = emit(relax.op.matmul(q, emit(relax.op.permute_dims(k, [0, 1, 3, 2]))))
            y = emit(relax.op.matmul(weigh(emit(relax.op.nn.softmax(scores))), v))
            y = emit(relax.op.permute_dims(stored(y, 0.02, 0, name="attend"), [0, 2, 1, 3]))
            y = stored(linear(emit(relax.op.reshape(y, (1, TOKENS, CHANNELS))), CHANNELS), 0.02, 5)
            return stored(emit(relax.op.add(x, y)), 2e-4, 0, "int16", name="residual")

        x = emit(relax.op.permute_dims(stored(image, 1.0, 0, "uint8"), [0, 3, 1, 2]))
        w = graph.weights(normal(CHANNELS, 3, 3, 3) / 60)
        bias = relax.const(normal(1, CHANNELS, 1, 1).astype(np.float32))
        x = emit(relax.op.add(emit(relax.op.nn.conv2d(x, w, strides=(2, 2))), bias))
        x = stored(x, 2e-4, 0, "int16", name="stem")
        channels = FACTORS.reshape(-1, 1, 1)
        x = scaled(graph.pointwise("gelu", x), channels, 0.05, -120, name="stem.act")
        w = graph.weights(normal(CHANNELS, CHANNELS, 1, 1))
        x = stored(emit(relax.op.nn.conv2d(x, w)), 2e-4, 0, "int16", name="conv")
        x = scaled(x, channels[::-1], 0.05, -3, name="rescaled")
        w = graph.weights(normal(CHANNELS, 1, 3, 3))
        x = emit(relax.op.nn.conv2d(x, w, padding=(1, 1, 1, 1), groups=CHANNELS))
        x = stored(x, 2e-4, 0, "int16", name="dw")
        side = (SIDE - 2) // 2 + (SIDE - 2) % 2
        x = emit(relax.op.reshape(emit(relax.op.permute_dims(x, [0, 2, 3, 1])), (1, side**2, -1)))
        pad = np.zeros((1, TOKENS - side**2, CHANNELS), np.float32)
        x = stored(emit(relax.op.concat([x, relax.const(pad)], 1)), 2e-4, 0, "int16", name="join")
        x = attend(x, log2)
        x = attend(x, lambda p: twin(p, 2.0**-14, 7, False, "attn.twin"))
        y = stored(x, 0.04, 0, name="mlp.in")
        y = stored(linear(y, HIDDEN), 2e-4, 0, "int16", name="fc1")
        y = twin(graph.pointwise("gelu", y), 0.17 / 127, 5, True, "fc1.twin")
        y = stored(linear(y, CHANNELS), 0.03, 2, name="fc2")
        y = stored(emit(relax.op.mean(y, [1], False)), 0.01, 0, name="pool")
        return stored(linear(y, CLASSES), 1e-5, 0, "int32", name="head")

    return build([((1, SIDE, SIDE, 3), "float32")], body)


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
        assert 10 * np.log10(1 / noise) > 25  # dB; codes of 4 bits may change


def test_what_follows_a_product_is_part_of_it(lowered: tvm.IRModule) -> None:
    chains = [[step.operator for step in config.steps] for config in configs(lowered, "fused")]
    assert ["conv2d", "pwl8", "scale_channels"] in chains
    assert ["linear", "scale_channels", "pad"] in chains
    assert ["linear", "pwl", "twin"] in chains
    names = operators(lowered)
    assert "permute_dims" not in names[: names.index("concat")]  # factors lie along the last axis
    assert "adalog_attention" in names and names.count("scale_channels") == 2  # of the norms


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
def test_the_arm_library_computes_the_same(
    lowered: tvm.IRModule,
    runner: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    library = build_for("aarch64-linux", lowered, tmp_path / "library.so")
    done = emulate(runner, library, "cortex-a76", pixels(), tmp_path)
    assert done.returncode == 0, done.stderr
    logits = np.fromfile(tmp_path / "logits", np.int32).reshape(-1, 1, CLASSES)
    np.testing.assert_array_equal(logits, [interpret(lowered, image) for image in pixels()])
