"""The library through its C interface, on this machine."""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tvm import IRModule

from tvm_passes.aot import LibraryInfo, build_library, resolve_target
from tvm_passes.errors import LoweringError

from .conftest import CLASSES, INFO, SIDE, Build, CLibrary, make_network, pointer

Images = NDArray[np.uint8]
Logits = NDArray[np.int32]


class Info(ctypes.Structure):
    """``pocketvit_info``."""

    _fields_ = (
        ("abi_version", ctypes.c_uint32),
        *((name, ctypes.c_int32) for name in ("height", "width", "channels", "num_classes")),
        *((name, ctypes.c_int32) for name in ("num_layers", "threads")),
        ("logits_scale", ctypes.c_float),
        *((name, ctypes.c_uint64) for name in ("arena_bytes", "parameter_bytes")),
        *((name, ctypes.c_char_p) for name in ("name", "target", "isa")),
    )


@pytest.mark.parametrize("target", ["host", "x86-64"])
def test_logits_equal_the_relax_virtual_machine(
    target: str, build: Build, images: Images, expected: Logits
) -> None:
    library = CLibrary(build(target)[0])
    handle = library.create()
    results = [library.run(handle, image) for image in images]
    library.lib.pocketvit_destroy(handle)
    np.testing.assert_array_equal(results, expected)


def started_threads(library: CLibrary, threads: int) -> int:
    """How many threads a handle starts; none is left when it is gone."""
    before = len(os.listdir("/proc/self/task"))
    handle = library.create(threads)
    started = len(os.listdir("/proc/self/task")) - before
    library.lib.pocketvit_destroy(handle)
    assert len(os.listdir("/proc/self/task")) == before
    return started


def test_a_handle_starts_as_many_threads_as_it_is_told(host: CLibrary) -> None:
    assert [started_threads(host, threads) for threads in (1, 2, 3, 100)] == [0, 1, 2, 15]
    assert started_threads(host, 0) == min(len(os.sched_getaffinity(0)), 4) - 1


def test_a_network_without_parallel_loops_starts_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "libpocketvit_serial.so"
    build_library(make_network(parallel=False), resolve_target("host"), INFO, path)
    assert started_threads(CLibrary(path), 3) == 0


def test_handles_run_at_once_with_any_number_of_threads(
    host: CLibrary, images: Images, expected: Logits
) -> None:
    def work(worker: int) -> bool:
        handle = host.create(threads=worker + 1)
        indices = [(worker + i) % len(images) for i in range(200)]
        same = all((host.run(handle, images[i]) == expected[i]).all() for i in indices)
        host.lib.pocketvit_destroy(handle)
        return same

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(work, range(3)))


@pytest.mark.parametrize("shift", [1, 4, 63])
def test_pointers_need_no_alignment(
    shift: int, host: CLibrary, images: Images, expected: Logits
) -> None:
    raw = np.zeros(images[2].size + 64, np.uint8)
    raw[shift : shift + images[2].size] = images[2].ravel()
    logits = np.zeros(4 * CLASSES + 64, np.uint8)
    handle = host.create()
    status = host.lib.pocketvit_run(handle, pointer(raw[shift:]), pointer(logits[shift:]))
    host.lib.pocketvit_destroy(handle)
    assert status == 0
    result = logits[shift : shift + 4 * CLASSES].tobytes()
    assert result == expected[2].tobytes()


def test_bad_arguments_return_a_status_and_a_message(host: CLibrary) -> None:
    lib, handle, out = host.lib, host.create(), ctypes.c_void_p(1)
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    assert lib.pocketvit_run(None, pointer(image), pointer(image)) == 1
    assert lib.pocketvit_run(handle, None, pointer(image)) == 1
    assert lib.pocketvit_last_error(handle) == b"rgb is NULL"
    assert lib.pocketvit_run(handle, pointer(image), None) == 1
    assert lib.pocketvit_last_error(handle) == b"logits is NULL"
    assert lib.pocketvit_profile(handle, pointer(image), pointer(image), None) == 1
    assert lib.pocketvit_last_error(handle) == b"layer_nanoseconds is NULL"
    host.run(handle, image)
    assert lib.pocketvit_last_error(handle) == b""
    assert lib.pocketvit_create(None, None) == 1
    assert lib.pocketvit_create(None, ctypes.byref(out)) == 0
    lib.pocketvit_destroy(out)
    assert lib.pocketvit_create(ctypes.byref(ctypes.c_int32(-1)), ctypes.byref(out)) == 1
    assert out.value is None
    assert lib.pocketvit_get_info(handle, None) == 1
    assert b"NULL or out of range" in lib.pocketvit_status_text(1)
    lib.pocketvit_destroy(handle)
    lib.pocketvit_destroy(None)


def test_info_tells_what_was_built(host: CLibrary, build: Build) -> None:
    report, target = build("host")[1], resolve_target("host")
    info, handle = Info(), host.create(threads=3)
    assert host.lib.pocketvit_get_info(handle, ctypes.byref(info)) == 0
    host.lib.pocketvit_destroy(handle)
    assert info.abi_version == host.lib.pocketvit_abi_version() == 1
    assert (info.height, info.width, info.channels, info.num_classes) == (SIDE, SIDE, 3, CLASSES)
    assert (info.num_layers, info.threads) == (len(report.layers), 3)
    assert info.logits_scale == INFO.logits_scale
    assert (info.arena_bytes, info.parameter_bytes) == (report.arena_bytes, report.parameter_bytes)
    assert (info.name, info.target) == (b"tiny_net", target.name.encode())
    assert info.isa == target.isa.encode()


def test_a_profile_times_every_layer(
    host: CLibrary, build: Build, images: Images, expected: Logits
) -> None:
    layers = build("host")[1].layers
    times, logits = np.zeros(len(layers), np.uint64), np.zeros((1, CLASSES), np.int32)
    handle = host.create()
    arguments = (pointer(images[3]), pointer(logits), pointer(times))
    assert host.lib.pocketvit_profile(handle, *arguments) == 0
    host.lib.pocketvit_destroy(handle)
    np.testing.assert_array_equal(logits, expected[3])
    assert (times > 0).all()
    names = [host.lib.pocketvit_layer_name(i).decode() for i in range(len(layers))]
    assert names == list(layers) == ["pointwise", "mix", "add", "mix", "add", "head"]
    assert host.lib.pocketvit_layer_name(len(layers)) is None
    assert host.lib.pocketvit_layer_name(-1) is None


def test_two_libraries_in_one_process_do_not_meet(
    build: Build, images: Images, expected: Logits, tmp_path: Path
) -> None:
    other = tmp_path / "libpocketvit_other.so"
    build_library(make_network(7), resolve_target("host"), LibraryInfo("other", 1.0), other)
    for path in (other, build("host")[0]):  # both in the global namespace
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    first, second = CLibrary(build("host")[0]), CLibrary(other)
    handle = first.create()
    np.testing.assert_array_equal(first.run(handle, images[2]), expected[2])
    assert (second.run(second.create(), images[2]) != expected[2]).any()
    first.lib.pocketvit_destroy(handle)


def test_the_same_module_gives_the_same_bytes(
    network: IRModule, build: Build, tmp_path: Path
) -> None:
    again = tmp_path / build("x86-64")[0].name
    build_library(network, resolve_target("x86-64"), INFO, again)
    assert again.read_bytes() == build("x86-64")[0].read_bytes()


def test_a_failed_build_leaves_the_old_library_and_nothing_else(
    network: IRModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, out = tmp_path / "tools", tmp_path / "out" / "lib.so"
    for folder in (tools, out.parent):
        folder.mkdir()
    out.write_bytes(b"old")
    (tools / "gcc").write_text("#!/bin/sh\necho 'no space left' >&2\nexit 1\n")
    (tools / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(LoweringError, match="gcc failed with status 1:\nno space left"):
        build_library(network, resolve_target("x86-64"), INFO, out)
    assert out.read_bytes() == b"old"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(("name", "scale"), [("a b", 1.0), ("", 1.0), ("x", 0.0), ("x", np.inf)])
def test_impossible_library_info_is_refused(name: str, scale: float) -> None:
    with pytest.raises(LoweringError):
        LibraryInfo(name, scale)
