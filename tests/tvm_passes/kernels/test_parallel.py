"""Parallel loops of kernels, in a library with several threads."""

import ctypes

import numpy as np
import pytest
from tvm import IRModule, relax, tirx
from tvm.script.ir_builder import tirx as T

from tvm_passes.aot import LibraryInfo, build_library, resolve_target
from tvm_passes.aot.functions import has_parallel_loop
from tvm_passes.kernels.builder import build_kernel, int32, load, splat, store
from tvm_passes.kernels.parallel import WORTHWHILE, tasks
from tvm_passes.ops.base import TensorSpec

SIDE, CLASSES, LANES = 32, 64, 16
ROW = SIDE * 3
IMAGE = TensorSpec((1, SIDE, SIDE, 3), "uint8")
LOGITS = TensorSpec((1, CLASSES), "int32")


def kernel(classes: int, work: int) -> tirx.PrimFunc:
    """Class c is the sum over pixels of (pixel + first pixels) * (c + 1), row by row."""
    out = TensorSpec((1, classes), "int32")
    with build_kernel([IMAGE, out]) as builder:
        image, logits = builder.buffers
        first = T.bind(load(image, 0, LANES).astype(f"int32x{LANES}"))  # a vector for all threads

        def body(index: tirx.Var) -> None:
            row = T.alloc_buffer((ROW,), "int32")
            total = T.alloc_buffer((1,), "int32")
            T.buffer_store(total, int32(0), [0])
            with T.serial(0, SIDE) as y:
                with T.serial(0, ROW // LANES) as step:
                    pixels = load(image, y * ROW + step * LANES, LANES).astype(f"int32x{LANES}")
                    store(row, step * LANES, (pixels + first) * splat(index + 1, LANES), LANES)
                with T.serial(0, ROW) as x:
                    T.buffer_store(total, total[0] + row[x], [0])
            T.buffer_store(logits, total[0], [index])

        tasks(classes, work, body)
    assert builder.func is not None
    return builder.func


@pytest.mark.parametrize(
    ("extent", "work", "parallel"),
    [
        (16, WORTHWHILE // 16, True),
        (16, WORTHWHILE // 16 - 1, False),
        (1, WORTHWHILE, False),
        (2, WORTHWHILE, True),
    ],
)
def test_only_enough_work_is_spread(extent: int, work: int, parallel: bool) -> None:
    assert has_parallel_loop(kernel(extent, work)) == parallel


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    builder = relax.BlockBuilder()
    image = relax.Var("image", relax.TensorType(IMAGE.shape, IMAGE.dtype))
    function = builder.add_func(kernel(CLASSES, WORTHWHILE), "sums")
    with builder.function("main", [image]):
        with builder.dataflow():
            out = relax.TensorType(LOGITS.shape, LOGITS.dtype)
            call = relax.op.call_tir(function, relax.Tuple([image]), out)
            result = builder.emit_output(builder.emit(call))
        builder.emit_func_output(result)
    mod: IRModule = builder.get()
    path = tmp_path_factory.mktemp("parallel") / "libpocketvit_sums.so"
    build_library(mod, resolve_target("host"), LibraryInfo("sums", 1.0), path)
    return ctypes.CDLL(str(path))


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_every_number_of_threads_gives_the_same(library: ctypes.CDLL, threads: int) -> None:
    handle, logits = ctypes.c_void_p(), np.zeros(CLASSES, np.int32)
    options = ctypes.byref(ctypes.c_int32(threads))
    assert library.pocketvit_create(options, ctypes.byref(handle)) == 0
    for seed in range(100):
        image = np.random.default_rng(seed).integers(0, 256, IMAGE.shape, np.uint8)
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in (image, logits))
        assert library.pocketvit_run(handle, *pointers) == 0
        flat = image.astype(np.int64).reshape(-1, LANES)
        expected = (flat + flat[0]).sum() * (np.arange(CLASSES) + 1)
        np.testing.assert_array_equal(logits, expected)
    library.pocketvit_destroy(handle)
