"""A network whose MLPs have learned to do with ReLU, from training to the library."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm

from pipeline.frontend.importer import import_quantized
from pipeline.quant.evaluate import sqnr_db
from pipeline.quant.quantized import QuantizedModel, quantize_model
from pipeline.quant.recipe import load_recipe, parse_recipe
from pipeline.quant.simulate import simulate
from tests.pipeline.quant.conftest import Builder
from tests.tvm_passes.aot.conftest import CLASSES, CLibrary
from tests.tvm_passes.aot.test_arm import emulate, runner  # noqa: F401  a fixture
from tests.tvm_passes.aot.test_arm import pytestmark as needs_emulator
from tests.tvm_passes.modules import configs, operators
from tvm_passes.aot import LibraryInfo, build_library, resolve_target
from tvm_passes.aot.weights import stored_weights
from tvm_passes.interpret import interpret
from tvm_passes.kernels.isa import ISAS
from tvm_passes.lowering.io import logits_scale
from tvm_passes.pipeline import lower, to_kernels

aten = torch.ops.aten
BUDGET: dict[str, Any] = {"images": 8, "iterations": 3, "batch": 4, "importance_images": 4}
WIDE = 48  # channels of the MLPs, so that packing saves bytes
PHOTOS = list(np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8))


def network() -> torch.fx.GraphModule:
    """An MLP of 1x1 convolutions around SiLU, and a transformer block with one around GELU."""
    b = Builder()
    x = b.stem(16)
    x = b.call(aten.add.Tensor, x, b.conv(b.call(aten.silu.default, b.conv(x, WIDE)), 16))
    tokens = b.tokens(x)
    tokens = b.call(aten.add.Tensor, tokens, b.attention(b.norm(tokens)))
    hidden = b.call(aten.gelu.default, b.linear(b.norm(tokens), WIDE))
    return b.head(b.call(aten.add.Tensor, tokens, b.linear(hidden, 16)), CLASSES)


def quantized(bits: int) -> QuantizedModel:
    """By `aphq` with next to no budget."""
    content = load_recipe(f"aphq:w{bits}a{bits}").model_dump() | {"calibration_images": 4}
    content["search"] |= {"rounds": 1, "count": 8, "zero_points": 2}
    content |= {"mlp": BUDGET, "reconstruct": BUDGET}
    return quantize_model(network(), PHOTOS, parse_recipe(content, "aphq"), {})


@pytest.fixture(scope="module", params=[4, 3])
def model(request: pytest.FixtureRequest) -> QuantizedModel:
    return quantized(request.param)


@pytest.fixture(scope="module")
def lowered(model: QuantizedModel) -> tvm.IRModule:
    return lower(import_quantized(model.graph))


def test_relu_is_a_range_of_the_products_codes(
    model: QuantizedModel, lowered: tvm.IRModule
) -> None:
    """No activation before it is stored, and no table stands for it."""
    assert len(model.quantization.rectified) == 2
    steps = [step.operator for config in configs(lowered, "fused") for step in config.steps]
    assert not {"lut", "pwl", "pwl8", "pointwise"} & {*operators(lowered), *steps}
    top = 2**model.recipe.activations.bits - 1
    rectified = [c for c in configs(lowered, "linear") if c.qmin == c.zero_point]
    assert [(c.dtype, c.qmax - c.qmin) for c in rectified] == [("int8", top)] * 2


def test_integers_follow_the_simulation() -> None:
    graph = quantized(8).graph
    module = lower(import_quantized(graph))
    got = np.concatenate([interpret(module, image[None]) for image in PHOTOS[8:]])
    assert sqnr_db(simulate(graph, PHOTOS[8:]), got * logits_scale(module)) > 35


def build_for(target: str, lowered: tvm.IRModule, out: Path) -> tuple[Path, dict[str, int]]:
    """The library, and the bits of the weights of its layers."""
    spec = resolve_target(target)
    kernels = to_kernels(lowered, ISAS[spec.isa])
    build_library(kernels, spec, LibraryInfo("rectified", logits_scale(lowered)), out)
    return out, {one.layer: one.bits for one in stored_weights(kernels)}


def test_the_library_computes_what_the_references_do(
    model: QuantizedModel, lowered: tvm.IRModule, tmp_path: Path
) -> None:
    path, bits = build_for("host", lowered, tmp_path / "library.so")
    assert model.recipe.weights.bits in bits.values()
    library = CLibrary(path)
    handle = library.create()
    for image in PHOTOS[8:]:
        expected = interpret(lowered, image[None])
        np.testing.assert_array_equal(library.run(handle, image[None]), expected)
    library.lib.pocketvit_destroy(handle)


@needs_emulator
def test_the_arm_library_computes_the_same(
    model: QuantizedModel,
    lowered: tvm.IRModule,
    runner: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    path, bits = build_for("aarch64-linux", lowered, tmp_path / "library.so")
    assert model.recipe.weights.bits in bits.values()
    images = np.stack(PHOTOS[8:])[:, None]
    done = emulate(runner, path, "cortex-a76", images, tmp_path)
    assert done.returncode == 0, done.stderr
    logits = np.fromfile(tmp_path / "logits", np.int32).reshape(-1, 1, CLASSES)
    np.testing.assert_array_equal(logits, [interpret(lowered, image) for image in images])
