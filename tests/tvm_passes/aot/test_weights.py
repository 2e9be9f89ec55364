"""Weights of few bits make the library smaller, change no logit, and are listed by layer."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm import relax

from tests.tvm_passes.modules import Graph, build
from tvm_passes.aot import (
    LibraryInfo,
    LibraryReport,
    build_library,
    bytes_by_bits,
    resolve_target,
    stored_weights,
)
from tvm_passes.interpret import interpret
from tvm_passes.kernels.isa import ISAS
from tvm_passes.lowering.io import logits_scale
from tvm_passes.pipeline import lower, to_kernels

from .conftest import CLASSES, CLibrary, make_network

SIDE, WIDTH = 8, 256
BITS = (8, 6, 5, 4, 3, 2)
HEAD = CLASSES * WIDTH


def network(bits: int) -> tvm.IRModule:
    """Two layers of ``bits`` bits on patches of the image, and a head of eight."""
    rng = np.random.default_rng(0)

    def body(graph: Graph, image: relax.Var) -> relax.Expr:
        def linear(x: relax.Expr, shape: tuple[int, int], bits: int) -> relax.Var:
            values: NDArray[Any] = rng.normal(size=shape) / np.sqrt(shape[1])
            w = graph.emit(relax.op.permute_dims(graph.weights(values, bits=bits), [1, 0]))
            return graph.emit(relax.op.matmul(x, w))

        x = graph.stored(image, 1.0, 0, "uint8")
        x = graph.emit(relax.op.reshape(x, (1, 1, SIDE * SIDE * 3)))
        x = graph.stored(linear(x, (WIDTH, SIDE * SIDE * 3), bits), 2.0, 3, name="first")
        x = graph.stored(linear(x, (WIDTH, WIDTH), bits), 2.0, -5, name="second")
        x = graph.emit(relax.op.reshape(x, (1, WIDTH)))
        return graph.stored(linear(x, (CLASSES, WIDTH), 8), 1e-3, 0, "int32", name="head")

    return lower(build([((1, SIDE, SIDE, 3), "float32")], body))


@pytest.fixture(scope="module")
def networks() -> dict[int, tvm.IRModule]:
    return {bits: network(bits) for bits in BITS}


def built(mod: tvm.IRModule, target: str, out: Path) -> LibraryReport:
    spec = resolve_target(target)
    info = LibraryInfo("net", logits_scale(mod))
    return build_library(to_kernels(mod, ISAS[spec.isa]), spec, info, out)


def test_fewer_bits_make_a_smaller_library_of_the_same_logits(
    networks: dict[int, tvm.IRModule], tmp_path: Path
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    sizes, weights = [], (SIDE * SIDE * 3 + WIDTH) * WIDTH
    for bits, mod in networks.items():
        path = tmp_path / f"{bits}.so"
        report = built(mod, "host", path)
        sizes.append(path.stat().st_size - bits * weights // 8)
        library = CLibrary(path)
        handle = library.create()
        np.testing.assert_array_equal(library.run(handle, image), interpret(mod, image))
        library.lib.pocketvit_destroy(handle)
        by_bits = bytes_by_bits(report.weights)
        assert list(by_bits) == sorted({bits, 8})
        if bits < 8:  # a byte for every channel's least code
            assert by_bits[bits] == bits * weights // 8 + 2 * WIDTH
    # nothing else grows by more than the code that unpacks and those codes
    assert max(sizes) - min(sizes) < 0.1 * weights


@pytest.mark.parametrize("isa", ["neon-dotprod", "neon-i8mm", "neon"])
def test_every_layer_is_listed(networks: dict[int, tvm.IRModule], isa: str) -> None:
    found = stored_weights(to_kernels(networks[3], ISAS[isa]))
    assert [each.bits for each in found] == [3, 3, 8]
    assert len({each.layer for each in found}) == 3
    assert found[1].nbytes == WIDTH * WIDTH * 3 // 8 + WIDTH
    assert found[2].nbytes >= HEAD


def test_packed_kernels_are_dumped_as_a_runnable_script(
    networks: dict[int, tvm.IRModule], tmp_path: Path
) -> None:
    selected = to_kernels(networks[5], ISAS["neon-i8mm"], tmp_path)
    (file,) = tmp_path.iterdir()
    tvm.ir.assert_structural_equal(runpy.run_path(str(file))["Module"], selected)


def test_a_module_of_other_kernels_has_no_weights() -> None:
    assert stored_weights(make_network(parallel=False)) == ()
