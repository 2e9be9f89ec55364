"""The same file loaded by TVM, in this process and over RPC."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm import rpc

from .conftest import CLASSES, Build

Images = NDArray[np.uint8]
Logits = NDArray[np.int32]


@pytest.fixture(scope="module")
def module(build: Build) -> tvm.runtime.Module:
    """The library as a TVM module."""
    return tvm.runtime.load_module(str(build("host")[0]))


def empty() -> tvm.runtime.Tensor:
    """Room for logits."""
    return tvm.runtime.tensor(np.zeros((1, CLASSES), np.int32))


def test_tvm_calls_the_same_network(
    module: tvm.runtime.Module, images: Images, expected: Logits
) -> None:
    for image, right in zip(images, expected, strict=True):
        logits = empty()
        module["pocketvit_run"](tvm.runtime.tensor(image), logits)
        np.testing.assert_array_equal(logits.numpy(), right)


def test_calls_at_the_same_time_are_independent(
    module: tvm.runtime.Module, images: Images, expected: Logits
) -> None:
    def work(worker: int) -> bool:
        run, logits, same = module["pocketvit_run"], empty(), True
        for i in range(100):
            index = (worker + i) % len(images)
            run(tvm.runtime.tensor(images[index]), logits)
            same &= bool((logits.numpy() == expected[index]).all())
        return same

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(work, range(3)))


def test_the_number_of_threads_can_be_set(
    module: tvm.runtime.Module, images: Images, expected: Logits
) -> None:
    def started(threads: int) -> int:
        assert module["pocketvit_set_threads"](1) == 1
        before = len(os.listdir("/proc/self/task"))
        assert module["pocketvit_set_threads"](threads) == threads
        logits = empty()
        module["pocketvit_run"](tvm.runtime.tensor(images[2]), logits)
        np.testing.assert_array_equal(logits.numpy(), expected[2])
        return len(os.listdir("/proc/self/task")) - before

    assert [started(threads) for threads in (1, 2, 3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="negative"):
        module["pocketvit_set_threads"](-1)


def test_the_environment_may_say_the_number_of_threads(
    build: Build, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copy(build("host")[0], tmp_path / "libpocketvit_again.so")
    monkeypatch.setenv("TVM_NUM_THREADS", "3")
    module = tvm.runtime.load_module(str(path))
    before = len(os.listdir("/proc/self/task"))
    module["pocketvit_run"](tvm.runtime.tensor(images[0]), empty())
    assert len(os.listdir("/proc/self/task")) - before == 2
    assert module["pocketvit_set_threads"](0) == 3
    assert module["pocketvit_set_threads"](2) == 2


def test_it_runs_over_rpc(build: Build, images: Images, expected: Logits) -> None:
    session = rpc.LocalSession()
    session.upload(str(build("host")[0]), target="net.so")
    module, device = session.load_module("net.so"), session.cpu()
    image = tvm.runtime.tensor(images[3], device)
    logits = tvm.runtime.tensor(np.zeros((1, CLASSES), np.int32), device)
    module["pocketvit_run"](image, logits)
    np.testing.assert_array_equal(logits.numpy(), expected[3])
    result = module.time_evaluator("pocketvit_run", device, number=3)(image, logits)
    assert result.mean > 0


def test_it_profiles_every_layer(module: tvm.runtime.Module, build: Build, images: Images) -> None:
    times = tvm.runtime.tensor(np.zeros(len(build("host")[1].layers), np.int64))
    module["pocketvit_profile"](tvm.runtime.tensor(images[0]), empty(), times)
    assert (times.numpy() > 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda image: (image,), "number of arguments"),
        (lambda image: (image[:, :8], empty()), "image must be"),
        (lambda image: (image.astype(np.int8), empty()), "image must be"),
        (lambda image: (image, image), "logits must be"),
        (lambda image: (1, empty()), "image must be"),
    ],
)
def test_wrong_arguments_raise(make, message, module, images) -> None:  # type: ignore[no-untyped-def]
    arguments = [
        tvm.runtime.tensor(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
        for value in make(images[0])
    ]
    with pytest.raises(ValueError, match=message):
        module["pocketvit_run"](*arguments)


def test_only_the_public_functions_are_found(module: tvm.runtime.Module) -> None:
    for name in ("kernel_0", "main", "mix"):
        with pytest.raises(AttributeError):
            module[name]
