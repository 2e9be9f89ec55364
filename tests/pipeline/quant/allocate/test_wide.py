"""Activations of 16 bits: their formats, and the integers that come of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from torch import fx

from pipeline.frontend.importer import import_quantized
from pipeline.quant import walk
from pipeline.quant.calibrate import calibrate
from pipeline.quant.evaluate import sqnr_db
from pipeline.quant.formats import int16
from pipeline.quant.initial import initial_weights
from pipeline.quant.insert import quantize_graph
from pipeline.quant.plan import make_plan
from pipeline.quant.quantization import Quantization
from pipeline.quant.recipe import Recipe, load_recipe
from pipeline.quant.roles import Role
from pipeline.quant.simulate import simulate
from tests.pipeline.quant.conftest import Builder, aten
from tests.tvm_passes.aot.conftest import CLASSES, CLibrary
from tests.tvm_passes.aot.test_arm import emulate, runner  # noqa: F401  a fixture
from tests.tvm_passes.aot.test_arm import pytestmark as needs_emulator
from tests.tvm_passes.test_pipeline import build_for
from tvm_passes.interpret import interpret
from tvm_passes.lowering.io import logits_scale
from tvm_passes.pipeline import lower

W8A8 = load_recipe("w8a8")
RANDOM = np.random.default_rng(0)
IMAGES = list(RANDOM.integers(0, 256, (32, 8, 8, 3), dtype=np.uint8))


def network() -> fx.GraphModule:
    """A convolution on the residual stream, deep enough to need fewer codes, and a transformer."""
    b = Builder()
    x = b.stem(32)
    hidden = b.call(aten.silu.default, b.conv(x, 16, kernel=3, padding=1, std=0.1, path="conv"))
    x = b.tokens(b.call(aten.add.Tensor, x, b.conv(hidden, 32, std=0.1)))
    x = b.call(aten.add.Tensor, x, b.attention(b.norm(x)))
    hidden = b.call(aten.gelu.default, b.linear(b.norm(x), 16, path="fc1"))
    x = b.call(aten.add.Tensor, x, b.linear(hidden, 32, path="fc2"))
    pooled = b.call(aten.mean.dim, b.norm(x), [1], False)
    return b.finish(b.linear(pooled, CLASSES, path="head"))


def wide(graph: fx.GraphModule) -> dict[str, int]:
    return {node.name: 16 for node in graph.graph.nodes if node.target in walk.GEMMS}


def quantized(graph: fx.GraphModule, bits: dict[str, int], recipe: Recipe = W8A8) -> fx.GraphModule:
    plan = make_plan(graph.graph, recipe, bits)
    activations = dict(calibrate(graph, IMAGES, recipe, plan).tensors)
    weights = initial_weights(graph, plan, recipe, activations)
    return quantize_graph(graph, plan, Quantization(activations, weights, bits=bits))


@pytest.mark.parametrize("depth", [1, 200, 288, 768, 3072, 100_000])
def test_no_sum_with_weights_of_8_bits_overflows(depth: int) -> None:
    form = int16(depth)
    assert form.dtype == "int16" and form.symmetric
    assert depth * 127 * form.qmax <= 2**30
    assert form.qmax == 2**15 - 1 or (depth + 1) * 127 * (form.qmax + 1) > 2**30


@pytest.mark.parametrize("name", ["w8a8", "w8a8-adalog", "w8a8-int8"])
def test_operands_of_attention_keep_8_bits(name: str) -> None:
    graph = network()
    plan = make_plan(graph.graph, load_recipe(name), wide(graph))
    for key, role in plan.roles.tensors.items():
        form = plan.formats.get(key)
        if role in (Role.OPERAND, Role.POST_GELU, Role.LN_OUT, Role.ATTENTION_OUT, Role.POOL):
            readers = walk.consumers(next(n for n in graph.graph.nodes if n.name == key))
            narrow = role is Role.OPERAND or all(r.target not in walk.GEMMS for r in readers)
            assert str(form).startswith("int8" if narrow else "int16"), (key, role)
    assert set(plan.weights.values()) == {8}


def test_the_residual_stream_is_read_directly_where_it_fits() -> None:
    graph = network()
    plan = make_plan(graph.graph, W8A8, wide(graph))
    conv = next(n for n in graph.graph.nodes if n.meta.get("module_path") == "conv")
    (copy,) = plan.copies.values()
    assert plan.copies[conv.name, 0] is copy and copy.format == int16(288)


def test_wide_activations_lose_less(vit) -> None:
    reference = simulate(vit, IMAGES[:8])
    plain, better = (
        sqnr_db(reference, simulate(quantized(vit, bits).eval(), IMAGES[:8]))
        for bits in ({}, wide(vit))
    )
    assert better > plain


@pytest.fixture(scope="module")
def simulated() -> fx.GraphModule:
    torch.set_num_threads(1)
    graph = network()
    return quantized(graph, wide(graph))


@pytest.fixture(scope="module")
def lowered(simulated: fx.GraphModule) -> tvm.IRModule:
    return lower(import_quantized(simulated))


def _pixels() -> np.ndarray:
    images = np.stack(IMAGES[:4])[:, None]
    images[0], images[1] = 0, 255
    return images


def test_integers_follow_the_simulation(simulated, lowered) -> None:
    integers = [interpret(lowered, image[None])[0] * logits_scale(lowered) for image in IMAGES[:4]]
    assert sqnr_db(simulate(simulated, IMAGES[:4]), np.stack(integers)) > 45


def test_the_library_computes_what_the_references_do(lowered, tmp_path: Path) -> None:
    library = CLibrary(build_for("host", lowered, tmp_path / "library.so"))
    handle = library.create()
    for image in _pixels():
        np.testing.assert_array_equal(library.run(handle, image), interpret(lowered, image))
    library.lib.pocketvit_destroy(handle)


@needs_emulator
def test_the_arm_library_computes_the_same(lowered, runner: Path, tmp_path: Path) -> None:  # noqa: F811
    library = build_for("aarch64-linux", lowered, tmp_path / "library.so")
    done = emulate(runner, library, "cortex-a76", _pixels(), tmp_path)
    assert done.returncode == 0, done.stderr
    logits = np.fromfile(tmp_path / "logits", np.int32).reshape(-1, 1, CLASSES)
    np.testing.assert_array_equal(logits, [interpret(lowered, image) for image in _pixels()])
