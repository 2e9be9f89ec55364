"""Measuring: what is reported on real and on emulated devices, and how logits are compared."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.device import cycles, profile
from pipeline.device.emulator import EmulatedDevice
from pipeline.device.host import HostDevice
from pipeline.device.measure import measure
from pipeline.device.remote import RpcDevice
from pipeline.device.session import Image, Logits
from pipeline.errors import UserError

CLASSES = 10
Compile = Callable[..., Path]  # compiles tiny_model.c, see conftest.py


def test_host_reports_times_accuracy_and_equality(
    compile_host: Compile, images: list[Image], expected_logits: Logits
) -> None:
    right = [int(row.argmax()) for row in expected_logits]
    labels = [right[0], right[1], (right[2] + 1) % CLASSES, None, None]
    pairs = zip(images, labels, strict=True)
    result = measure(compile_host(), HostDevice(), pairs, CLASSES, expected_logits, runs=9)
    assert (result.images, result.labelled, result.differing_images) == (5, 3, 0)
    assert result.top1 == pytest.approx(2 / 3)
    assert result.cost is None and result.latency is not None and result.latency.runs == 9
    assert 0 < result.latency.p10_ms <= result.latency.median_ms <= result.latency.p90_ms


def test_images_with_any_differing_logit_are_counted(
    compile_host: Compile, images: list[Image], expected_logits: Logits
) -> None:
    reference = expected_logits.copy()
    reference[1, 3] += 1
    reference[4] -= 7
    pairs = ((image, None) for image in images)
    result = measure(compile_host(), HostDevice(), pairs, CLASSES, reference, runs=1)
    assert result.differing_images == 2
    assert result.top1 is None


def test_emulated_device_reports_instructions_and_never_time(
    old_phone: EmulatedDevice, compile_arm: Compile, images: list[Image], expected_logits: Logits
) -> None:
    with RpcDevice(old_phone.tracker, old_phone.key) as device:
        pairs = ((image, 0) for image in images)
        result = measure(compile_arm(), device, pairs, CLASSES, expected_logits)
    assert result.emulated and result.latency is None and result.differing_images == 0
    assert result.cost is not None and result.cost.instructions > 0
    if not result.notes:  # LLVM's tools are there
        assert sum(result.cost.by_class.values()) == result.cost.instructions
        assert set(result.cost.estimated_cycles) == set(cycles.DEFAULT_CORES)
    assert "_ms" not in result.to_json()


def test_without_llvm_instructions_are_counted_all_the_same(
    old_phone: EmulatedDevice,
    compile_arm: Compile,
    images: list[Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(words: object) -> dict[str, str]:
        raise UserError("llvm-mc is not installed; run: apt-get install llvm-22.")

    monkeypatch.setattr(profile, "disassemble", missing)
    with RpcDevice(old_phone.tracker, old_phone.key) as device:
        result = measure(compile_arm(), device, [(images[0], None)], CLASSES)
    assert result.cost is not None and result.cost.instructions > 0
    assert result.cost.by_class == {} and "llvm-mc is not installed" in result.notes[0]


def test_device_without_counting_says_so(
    new_phone: EmulatedDevice, compile_arm: Compile, images: list[Image]
) -> None:
    with RpcDevice(new_phone.tracker, new_phone.key) as device:
        result = measure(compile_arm(), device, [(images[0], None)], CLASSES)
    assert result.cost is None and result.latency is None and "cannot count" in result.notes[0]


def test_result_round_trips_through_json(compile_host: Compile, images: list[Image]) -> None:
    result = measure(compile_host(), HostDevice(), [(images[0], 1)], CLASSES, runs=2)
    fields = json.loads(result.to_json())
    assert fields["latency"]["median_ms"] == result.latency.median_ms  # type: ignore[union-attr]
    assert len(fields["library_sha256"]) == 64 and fields["differing_images"] is None


def test_reference_of_another_shape_type_or_length_is_refused(
    compile_host: Compile, images: list[Image], expected_logits: Logits
) -> None:
    library, pairs = compile_host(), [(image, None) for image in images]
    for wrong in (expected_logits[:, :9], expected_logits.astype(np.float32)):
        with pytest.raises(UserError, match="must be int32 .images, 10."):
            measure(library, HostDevice(), pairs, CLASSES, wrong)
    with pytest.raises(UserError, match="more images than the 4 rows"):
        measure(library, HostDevice(), pairs, CLASSES, expected_logits[:4], runs=1)
    with pytest.raises(UserError, match="4 images and 5 rows"):
        measure(library, HostDevice(), pairs[:4], CLASSES, expected_logits, runs=1)


def test_no_image_is_an_error(compile_host: Compile) -> None:
    with pytest.raises(UserError, match="no image"):
        measure(compile_host(), HostDevice(), [], CLASSES)
