"""A small integer network, and a library that is called through its C interface."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm import IRModule, relax, te, tirx
from tvm.s_tir import Schedule

from tvm_passes.aot import LibraryInfo, LibraryReport, build_library, resolve_target

SIDE, CHANNELS, CLASSES = 16, 8, 10
INFO = LibraryInfo("tiny_net", 0.125)


def narrow(value: te.Tensor) -> te.Tensor:
    """Int32 accumulators as int8, by an arithmetic shift."""
    return te.compute(
        value.shape,
        lambda *i: tirx.max(tirx.min(value(*i) >> 5, 127), -128).astype("int8"),
        name="narrow",
    )


def pointwise(image: te.Tensor, weight: te.Tensor) -> te.Tensor:
    """A 1x1 convolution of stride 2; its int32 result needs a workspace."""
    k = te.reduce_axis((0, weight.shape[1]))
    shape = (1, (image.shape[1] + 1) // 2, (image.shape[2] + 1) // 2, weight.shape[0])
    return narrow(
        te.compute(
            shape,
            lambda n, y, x, c: te.sum(
                image[n, 2 * y, 2 * x, k].astype("int32") * weight[c, k].astype("int32"), axis=k
            ),
            name="product",
        )
    )


def mix(tokens: te.Tensor, weight: te.Tensor) -> te.Tensor:
    """A linear layer over tokens."""
    k = te.reduce_axis((0, weight.shape[1]))
    return narrow(
        te.compute(
            tokens.shape,
            lambda n, t, c: te.sum(
                tokens[n, t, k].astype("int32") * weight[c, k].astype("int32"), axis=k
            ),
            name="product",
        )
    )


def add(left: te.Tensor, right: te.Tensor, bias: te.Tensor) -> te.Tensor:
    """A wrapping residual add."""
    return te.compute(
        left.shape, lambda n, t, c: left[n, t, c] + right[n, t, c] + bias[c], name="add"
    )


def head(tokens: te.Tensor, weight: te.Tensor) -> te.Tensor:
    """Int32 logits."""
    t, c = te.reduce_axis((0, tokens.shape[1])), te.reduce_axis((0, tokens.shape[2]))
    return te.compute(
        (1, weight.shape[0]),
        lambda n, o: te.sum(
            tokens[n, t, c].astype("int32") * weight[o, c].astype("int32"), axis=[t, c]
        ),
        name="head",
    )


def make_network(seed: int = 0, parallel: bool = True) -> IRModule:
    """Stem, reshape to tokens, two residual linear layers, head; one kernel has a parallel loop."""
    rng = np.random.default_rng(seed)

    def constant(*shape: int) -> relax.Expr:
        return relax.const(rng.integers(-127, 128, shape, dtype=np.int8))

    builder = relax.BlockBuilder()
    image = relax.Var("image", relax.TensorType((1, SIDE, SIDE, 3), "uint8"))
    bias = rng.integers(-5, 6, CHANNELS, dtype=np.int8)
    with builder.function("main", [image]):
        with builder.dataflow():
            stem = builder.emit_te(pointwise, image, constant(CHANNELS, 3))
            tokens = builder.emit(relax.op.reshape(stem, (1, (SIDE // 2) ** 2, CHANNELS)))
            for _ in range(2):
                mixed = builder.emit_te(mix, tokens, constant(CHANNELS, CHANNELS))
                tokens = builder.emit_te(add, tokens, mixed, relax.const(bias))
            logits = builder.emit_te(head, tokens, constant(CLASSES, CHANNELS))
            result = builder.emit_output(logits)
        builder.emit_func_output(result)
    mod = builder.get()
    if not parallel:
        return mod
    schedule = Schedule(mod["mix"])
    schedule.parallel(schedule.get_loops(schedule.get_sblock("narrow"))[1])
    mod["mix"] = schedule.mod["main"].with_attr("global_symbol", "mix")
    return mod


class CLibrary:
    """The C interface through ctypes."""

    def __init__(self, path: Path) -> None:
        """Load the library."""
        self.lib = ctypes.CDLL(str(path))
        self.lib.pocketvit_last_error.restype = ctypes.c_char_p
        self.lib.pocketvit_layer_name.restype = ctypes.c_char_p
        self.lib.pocketvit_status_text.restype = ctypes.c_char_p
        self.lib.pocketvit_destroy.restype = None

    def create(self, threads: int = 0) -> ctypes.c_void_p:
        """A handle of ``pocketvit_options.threads``."""
        handle, options = ctypes.c_void_p(), ctypes.c_int32(threads)
        assert self.lib.pocketvit_create(ctypes.byref(options), ctypes.byref(handle)) == 0
        return handle

    def run(self, handle: ctypes.c_void_p, image: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Logits of one image."""
        logits = np.full((1, CLASSES), -1, np.int32)
        status = self.lib.pocketvit_run(handle, pointer(image), pointer(logits))
        assert status == 0, self.lib.pocketvit_last_error(handle)
        return logits


def pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    """Address of a contiguous array."""
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


@pytest.fixture(scope="session")
def network() -> IRModule:
    """The network."""
    return make_network()


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """Four random images, the extremes first."""
    pixels = np.random.default_rng(1).integers(0, 256, (4, 1, SIDE, SIDE, 3), np.uint8)
    pixels[0], pixels[1] = 0, 255
    return pixels


@pytest.fixture(scope="session")
def expected(network: IRModule, images: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Logits of the images from the Relax virtual machine."""
    executable = relax.build(network, target=tvm.target.Target({"kind": "llvm"}))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    return np.stack([machine["main"](tvm.runtime.tensor(image)).numpy() for image in images])


Build = Callable[[str], tuple[Path, LibraryReport]]


@pytest.fixture(scope="session")
def build(network: IRModule, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Function that builds the network's library for a target, once per session."""
    built: dict[str, tuple[Path, LibraryReport]] = {}

    def build_once(target: str) -> tuple[Path, LibraryReport]:
        if target not in built:
            path = tmp_path_factory.mktemp(target) / "libpocketvit_tiny_net.so"
            built[target] = path, build_library(network, resolve_target(target), INFO, path)
        return built[target]

    return build_once


@pytest.fixture(scope="session")
def host(build: Build) -> CLibrary:
    """The library for this machine."""
    return CLibrary(build("host")[0])
