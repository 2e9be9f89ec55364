"""Mobile-Former from the model to the library: dynamic ReLU, bridges, long rows, shuffles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm

from pipeline.canonical import canonicalize
from pipeline.canonical.graph import ADD, CONV, MATMUL, MUL, calls, constant
from pipeline.frontend.importer import import_quantized
from pipeline.models import LoadedModel, ModelSpec, load_model
from pipeline.operators import DYNAMIC_RELU
from pipeline.quant.evaluate import sqnr_db
from pipeline.quant.quantized import quantize_model
from pipeline.quant.recipe import load_recipe
from pipeline.quant.simulate import simulate
from tests.tvm_passes.aot.conftest import CLASSES, CLibrary
from tests.tvm_passes.aot.test_arm import emulate, runner  # noqa: F401  a fixture
from tests.tvm_passes.aot.test_arm import pytestmark as needs_emulator
from tests.tvm_passes.modules import configs, operators
from tvm_passes.aot import LibraryInfo, build_library, resolve_target
from tvm_passes.interpret import interpret
from tvm_passes.kernels.isa import ISAS
from tvm_passes.lowering.io import logits_scale
from tvm_passes.pipeline import lower, to_kernels

SIDE = 144  # the first bridge reads 36x36 positions: more than the longest row that is stored
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def photos(count: int) -> list[Pixels]:
    """Smooth noise of several scales, so that layers beyond the first see something."""
    random = torch.Generator().manual_seed(0)
    total = torch.zeros(count, 3, SIDE, SIDE)
    for size in (3, 9, 36, SIDE):
        noise = torch.rand(count, 3, size, size, generator=random)
        total += torch.nn.functional.interpolate(noise, (SIDE, SIDE), mode="bilinear") / 4
    pixels = (total.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1)
    return list(pixels.contiguous().numpy())


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    spec = ModelSpec("mobile_former_26m", random_seed=0, num_classes=CLASSES, input_size=SIDE)
    return load_model(spec)


@pytest.fixture(scope="module")
def graph(loaded: LoadedModel) -> torch.fx.GraphModule:
    return canonicalize(loaded)


@pytest.fixture(scope="module")
def quantized(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    recipe = load_recipe("w8a8").model_copy(update={"calibration_images": 2})
    return quantize_model(graph, photos(2), recipe, {}).graph


@pytest.fixture(scope="module")
def lowered(quantized: torch.fx.GraphModule) -> tvm.IRModule:
    return lower(import_quantized(quantized))


def test_every_dynamic_relu_group_and_shuffle_is_folded(graph: torch.fx.GraphModule) -> None:
    aten = torch.ops.aten
    assert len(list(calls(graph, DYNAMIC_RELU))) == 2 * 8
    assert not list(calls(graph, aten.maximum.default))
    depthwise = [conv for conv in calls(graph, CONV) if conv.args[6] != 1]
    assert len(depthwise) == 1 + 2 * 3 + 5
    assert all(conv.args[6] == conv.meta["val"].shape[1] for conv in depthwise)
    views = [node for node in calls(graph, aten.permute.default) if node.meta["val"].dim() == 5]
    assert not views  # of shuffles
    scaled = [node for node in calls(graph, MUL) if node.args[0].target is MATMUL]
    assert not scaled
    # what is left are gates, and the constants of the norms, which sums read, too
    constants = [node for node in calls(graph, MUL) if constant(graph, node.args[1]) is not None]
    assert all({user.target for user in node.users} == {ADD} for node in constants[1:])


def test_integers_follow_the_float_network(
    graph: torch.fx.GraphModule, quantized: torch.fx.GraphModule, lowered: tvm.IRModule
) -> None:
    images = photos(2)
    expected, simulated = simulate(graph, images), simulate(quantized, images)
    got = np.concatenate([interpret(lowered, image[None]) for image in images])
    got = got * logits_scale(lowered)
    assert sqnr_db(expected, got) > 35
    assert sqnr_db(simulated, got) > 35


def test_operators_fuse(lowered: tvm.IRModule) -> None:
    names = operators(lowered)
    assert names.count("attention") == 3 * 8 + 1
    assert not {"softmax", "matmul", "dynamic_relu"} & set(names)
    steps = [step.operator for config in configs(lowered, "fused") for step in config.steps]
    assert steps.count("dynamic_relu") == 2 * 8


def build_for(target: str, lowered: tvm.IRModule, out: Path) -> Path:
    spec = resolve_target(target)
    info = LibraryInfo("mobile_former_26m", logits_scale(lowered))
    build_library(to_kernels(lowered, ISAS[spec.isa]), spec, info, out)
    return out


def test_the_library_computes_what_the_references_do(lowered: tvm.IRModule, tmp_path: Path) -> None:
    library = CLibrary(build_for("host", lowered, tmp_path / "library.so"))
    handle = library.create()
    for image in photos(2):
        expected = interpret(lowered, image[None])
        np.testing.assert_array_equal(library.run(handle, image[None]), expected)
    library.lib.pocketvit_destroy(handle)


@needs_emulator
def test_the_arm_library_computes_the_same(
    lowered: tvm.IRModule,
    runner: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    library = build_for("aarch64-linux", lowered, tmp_path / "library.so")
    images = np.stack(photos(2))[:, None]
    done = emulate(runner, library, "cortex-a76", images, tmp_path)
    assert done.returncode == 0, done.stderr
    logits = np.fromfile(tmp_path / "logits", np.int32).reshape(-1, 1, CLASSES)
    np.testing.assert_array_equal(logits, [interpret(lowered, image) for image in images])
