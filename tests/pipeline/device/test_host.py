"""Running a library on this machine."""

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.device.host import HostDevice
from pipeline.device.session import Image, Logits
from pipeline.errors import UserError

CLASSES = 10
Compile = Callable[..., Path]  # compiles tiny_model.c, see conftest.py


def test_logits_are_those_of_the_library(
    compile_host: Compile, images: list[Image], expected_logits: Logits
) -> None:
    program = HostDevice().load(compile_host(), CLASSES)
    np.testing.assert_array_equal(
        np.concatenate([program.run(image) for image in images]), expected_logits
    )


def test_result_does_not_change_with_the_next_run(
    compile_host: Compile, images: list[Image], expected_logits: Logits
) -> None:
    program = HostDevice().load(compile_host(), CLASSES)
    first = program.run(images[0])
    program.run(images[1])
    np.testing.assert_array_equal(first[0], expected_logits[0])


def test_a_view_of_an_image_is_read_in_its_own_order(
    compile_host: Compile, images: list[Image]
) -> None:
    program = HostDevice().load(compile_host(), CLASSES)
    mirrored = images[0][:, :, ::-1, :]
    np.testing.assert_array_equal(program.run(mirrored), program.run(mirrored.copy()))


def test_time_reports_one_positive_number_per_run(
    compile_host: Compile, images: list[Image]
) -> None:
    seconds = HostDevice().load(compile_host(), CLASSES).time(images[0], n=7, warmup=2)
    assert len(seconds) == 7 and min(seconds) > 0


def test_failure_of_the_library_is_reported(compile_host: Compile, images: list[Image]) -> None:
    program = HostDevice().load(compile_host("FAIL"), CLASSES)
    with pytest.raises(UserError, match="lib.so failed: a kernel failed"):
        program.run(images[0])


@pytest.mark.parametrize(
    "image", [np.zeros((16, 16, 3), np.uint8), np.zeros((1, 3, 16, 16), np.uint8)]
)
def test_image_of_another_layout_is_refused(compile_host: Compile, image: Image) -> None:
    with pytest.raises(UserError, match="uint8 .1, H, W, 3."):
        HostDevice().load(compile_host(), CLASSES).run(image)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="this host runs ARM code itself")
def test_library_for_another_machine_is_refused(compile_arm: Compile) -> None:
    with pytest.raises(UserError, match="made for aarch64 and this host is x86_64"):
        HostDevice().load(compile_arm(), CLASSES)


def test_library_without_the_function_is_refused(tmp_path: Path, compile_host: Compile) -> None:
    library = compile_host(options=("-Dpocketvit_abi_version=other",))
    with pytest.raises(UserError, match="cannot be loaded as a PocketViT library"):
        HostDevice().load(library, CLASSES)


def test_library_of_another_interface_version_is_refused(compile_host: Compile) -> None:
    with pytest.raises(UserError, match="version 2 of the C interface, this is for 1"):
        HostDevice().load(compile_host("NEWER"), CLASSES)


def test_size_of_image_and_number_of_classes_must_fit(compile_host: Compile) -> None:
    library = compile_host()
    with pytest.raises(UserError, match="10 classes instead of 1000"):
        HostDevice().load(library, 1000)
    with pytest.raises(UserError, match=r"\[1, 16, 16, 3\], not \[1, 32, 16, 3\]"):
        HostDevice().load(library, CLASSES).run(np.zeros((1, 32, 16, 3), np.uint8))


def test_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_text("hello")
    with pytest.raises(UserError, match="not a shared library"):
        HostDevice().load(tmp_path / "lib.so", CLASSES)
    with pytest.raises(UserError, match="No such file"):
        HostDevice().load(tmp_path / "missing.so", CLASSES)


def test_host_cannot_count(compile_host: Compile, images: list[Image]) -> None:
    with pytest.raises(UserError, match="emulated"):
        HostDevice().load(compile_host(), CLASSES).count(images[0], 1, 0)


def test_a_library_that_was_built_again_is_loaded_again(
    compile_host: Compile, images: list[Image]
) -> None:
    library = compile_host()
    before = HostDevice().load(library, CLASSES)
    compile_host("FAIL").replace(library)
    with pytest.raises(UserError, match="failed"):
        HostDevice().load(library, CLASSES).run(images[0])
    before.run(images[0])
