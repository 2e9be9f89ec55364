"""Running a library on an emulated device over RPC, and everything that can go wrong there."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.device.emulator import EmulatedDevice, start_emulator
from pipeline.device.emulator_install import EmulatorInstall
from pipeline.device.profile import count_classes
from pipeline.device.remote import RpcDevice
from pipeline.device.session import Image, Logits
from pipeline.device.tracker import Address
from pipeline.errors import UserError

CLASSES = 10
Compile = Callable[..., Path]  # compiles tiny_model.c, see conftest.py

DOTPROD = ("-march=armv8.2-a+dotprod",)


def test_logits_equal_the_host_bit_for_bit(
    old_phone: EmulatedDevice, compile_arm: Compile, images: list[Image], expected_logits: Logits
) -> None:
    with RpcDevice(old_phone.tracker, old_phone.key) as device:
        program = device.load(compile_arm(), CLASSES)
        logits = np.concatenate([program.run(image) for image in images])
    assert logits.dtype == np.int32
    np.testing.assert_array_equal(logits, expected_logits)


def test_device_knows_what_it_emulates(
    old_phone: EmulatedDevice, new_phone: EmulatedDevice
) -> None:
    with (
        RpcDevice(str(old_phone.tracker), "old") as old,
        RpcDevice(new_phone.tracker, "new") as new,
    ):
        assert old.info and new.info and old.emulated and new.emulated
        assert old.info.features == ("neon",)
        assert "dotprod" in new.info.features
        assert old.name == "emulated cortex-a53"


def test_instruction_counts_are_exact_and_repeat(
    old_phone: EmulatedDevice, compile_arm: Compile, images: list[Image]
) -> None:
    with RpcDevice(old_phone.tracker, old_phone.key) as device:
        program = device.load(compile_arm(), CLASSES)
        once = program.count(images[0], n=1, warmup=1).instructions()["lib.so"]
        thrice = program.count(images[1], n=3, warmup=0).instructions()["lib.so"]
    assert once == thrice
    # 16 multiply-adds per 16 bytes and class, each at least a load and a multiply
    assert once > 2 * 16 * 16 * 3 * CLASSES


def test_dot_products_are_counted_one_by_one(
    install: EmulatorInstall, tracker: Address, compile_arm: Compile, images: list[Image]
) -> None:
    with start_emulator(install, "max,sve=off", "newest", tracker, count_instructions=True):
        with RpcDevice(tracker, "newest") as device:
            assert device.info and device.info.features == ("neon", "fp16", "dotprod", "i8mm")
            library = compile_arm("USE_SDOT", options=DOTPROD)
            profile = device.load(library, CLASSES).count(images[0], n=2, warmup=1)
    assert count_classes(profile, "lib.so")["dot product"] == 16 * 16 * 3 // 16 * CLASSES


def test_time_leaves_the_warmup_out(
    new_phone: EmulatedDevice, compile_arm: Compile, images: list[Image]
) -> None:
    with RpcDevice(new_phone.tracker, new_phone.key) as device:
        seconds = device.load(compile_arm(), CLASSES).time(images[0], n=4, warmup=3)
    assert len(seconds) == 4 and min(seconds) > 0


def test_closing_gives_the_device_back(new_phone: EmulatedDevice, compile_arm: Compile) -> None:
    with RpcDevice(new_phone.tracker, new_phone.key) as device:
        still_referenced = device.load(compile_arm(), CLASSES)
    RpcDevice(new_phone.tracker, new_phone.key, timeout=10).close()
    del still_referenced


def test_busy_and_unknown_devices_are_told_apart(new_phone: EmulatedDevice) -> None:
    with RpcDevice(new_phone.tracker, new_phone.key):
        with pytest.raises(UserError, match="'new' at tracker .* is still busy after 0.3 s"):
            RpcDevice(new_phone.tracker, new_phone.key, timeout=0.3)
        with pytest.raises(UserError, match="No device with key 'nobody' .*there are: .*new"):
            RpcDevice(new_phone.tracker, "nobody", timeout=0.3)


def test_instruction_that_the_cpu_lacks_is_named_as_the_cause(
    old_phone: EmulatedDevice, compile_arm: Compile, images: list[Image]
) -> None:
    with RpcDevice(old_phone.tracker, old_phone.key) as device:
        program = device.load(compile_arm("USE_SDOT", options=DOTPROD), CLASSES)
        with pytest.raises(UserError, match="lacks, which has only neon; .*without dotprod"):
            program.run(images[0])
    with RpcDevice(old_phone.tracker, old_phone.key) as device:  # the device survives
        device.load(compile_arm(), CLASSES).run(images[0])


def test_error_of_the_library_comes_through(
    new_phone: EmulatedDevice, compile_arm: Compile, images: list[Image]
) -> None:
    with RpcDevice(new_phone.tracker, new_phone.key) as device:
        program = device.load(compile_arm("FAIL"), CLASSES)
        with pytest.raises(UserError, match="a kernel failed"):
            program.run(images[0])


def test_library_of_the_host_is_refused(new_phone: EmulatedDevice, compile_host: Compile) -> None:
    with RpcDevice(new_phone.tracker, new_phone.key) as device:
        if "aarch64" in os.uname().machine:
            pytest.skip("this host runs ARM code itself")
        with pytest.raises(UserError, match="needs one for aarch64"):
            device.load(compile_host(), CLASSES)


def test_library_without_the_function_is_refused(
    new_phone: EmulatedDevice, compile_arm: Compile
) -> None:
    with RpcDevice(new_phone.tracker, new_phone.key) as device:
        with pytest.raises(UserError, match="no function pocketvit_run"):
            device.load(compile_arm(options=("-D__tvm_ffi_pocketvit_run=other",)), CLASSES)


def test_counting_needs_a_device_that_counts(
    new_phone: EmulatedDevice, compile_arm: Compile, images: list[Image]
) -> None:
    with RpcDevice(new_phone.tracker, new_phone.key) as device:
        with pytest.raises(UserError, match="cannot count"):
            device.load(compile_arm(), CLASSES).count(images[0], 1, 0)


def test_call_that_never_returns_is_cut_off(
    old_phone: EmulatedDevice, compile_arm: Compile, images: list[Image]
) -> None:
    with RpcDevice(old_phone.tracker, old_phone.key, call_timeout=1) as device:
        program = device.load(compile_arm("HANG"), CLASSES)
        with pytest.raises(UserError, match="did not answer within 1 s"):
            program.run(images[0])
    RpcDevice(old_phone.tracker, old_phone.key, timeout=20).close()  # the device recovers


def test_device_that_is_stuck_or_gone_is_reported(
    install: EmulatorInstall, tracker: Address, compile_arm: Compile, images: list[Image]
) -> None:
    with start_emulator(install, "cortex-a53", "doomed", tracker) as emulator:
        processes = psutil.Process(emulator.process.supervisor.pid).children(recursive=True)
        for process in processes:
            process.suspend()
        with pytest.raises(UserError, match="'doomed' did not answer within 1 s"):
            RpcDevice(tracker, "doomed", timeout=1)
        for process in processes:
            process.resume()
        with RpcDevice(tracker, "doomed", timeout=20) as device:
            program = device.load(compile_arm("HANG"), CLASSES)
            threading.Timer(0.5, emulator.process.stop).start()
            with pytest.raises(UserError, match="'doomed' was lost: it was switched off"):
                program.run(images[0])
