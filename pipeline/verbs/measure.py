"""`measure`: an artifact on devices, its logits compared with those of this host."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.artifact import Artifact, read_artifact
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.source import PhotoSource
from pipeline.device import Device, HostDevice, Measurement, RpcDevice
from pipeline.device import measure as measure_library
from pipeline.device.session import Image, Logits
from pipeline.errors import UserError
from pipeline.stages.photos import scan_validation
from pipeline.stages.workspace import Workspace
from pipeline.verbs.choice import Choice, Emulated, Host, Remote
from pipeline.verbs.result import MeasureResult

RANDOM_IMAGES = 4

LabelledImage = tuple[Image, int | None]


def measure(
    path: Path,
    devices: Sequence[Choice],
    workspace: Workspace,
    validation: PhotoSource | None = None,
    labels_file: Path | None = None,
    photos: int = 16,
    runs: int = 30,
    warmup: int = 5,
    target: str | None = None,
) -> MeasureResult:
    """Measure an artifact's libraries on devices.

    Args:
        path: the artifact.
        devices: see `parse_devices`.
        workspace: reports what is done.
        validation: folder or list of labelled photos; without, a few images of random pixels are
            run.
        labels_file: labels, where the folders do not say them.
        photos: number of photos to run on each device, evenly from all classes.
        runs: timed runs on real hardware.
        warmup: runs before them.
        target: whose library to run; None takes the best that the device runs.

    Raises:
        UserError: the artifact is damaged or lacks a library, or a device fails.
    """
    artifact = read_artifact(path)
    model = artifact.manifest.model
    images = random_images(model.input_size)
    if validation is not None:
        scanned = scan_validation(
            workspace,
            validation,
            model.num_classes,
            Preprocessing(**model.preprocessing),  # type: ignore[arg-type]  # it checks them
            labels_file,
            photos,
        )
        pixels = scanned.pixels(0, len(scanned.photos))
        images = [
            (image[None], photo.label) for image, photo in zip(pixels, scanned.photos, strict=True)
        ]
    expected = host_logits(artifact, [image for image, _ in images])
    if expected is None:
        workspace.reporter.note(
            f"{path} has no library for this host, so that logits cannot be compared with its."
        )
    measurements = [
        measure_on(workspace, artifact, device, images, expected, runs, warmup, target)
        for device in devices
    ]
    return MeasureResult(model.name, model.recipe, tuple(measurements), path)


def measure_on(
    workspace: Workspace,
    artifact: Artifact,
    choice: Choice,
    images: Sequence[LabelledImage],
    expected: Logits | None,
    runs: int,
    warmup: int,
    target: str | None = None,
) -> Measurement:
    """Measure the library of an artifact that suits a device.

    Args:
        workspace: reports what is done.
        artifact: what to measure.
        choice: where.
        images: uint8 `[1, H, W, 3]` and labels.
        expected: int32 `[images, classes]`, the logits to compare with.
        runs: timed runs on real hardware.
        warmup: runs before them.
        target: whose library to run; None takes the best that the device runs.

    Raises:
        UserError: the artifact lacks the library, or the device fails.
    """
    classes = artifact.manifest.model.num_classes
    with choice.open(workspace.reporter) as device:
        library = artifact.library(target or suitable_target(artifact, choice, device))
        with workspace.reporter.step(f"measure on {choice.name}", len(images)) as step:
            counted = _counted(images, step.advance)
            if isinstance(choice, Host):
                expected = None  # it would be compared with itself
            return measure_library(library, device, counted, classes, expected, runs, warmup)


def suitable_target(artifact: Artifact, choice: Choice, device: Device) -> str:
    """The target whose library of an artifact a device should run.

    Raises:
        UserError: several would do and only the user knows which.
    """
    wanted = choice.targets()
    if isinstance(device, RpcDevice) and device.info and device.emulated:
        wanted = Emulated(device.info.emulated_cpu).targets()
    available = [name for name in wanted if name in artifact.manifest.libraries]
    if isinstance(choice, Remote) and not device.emulated and len(available) > 1:
        raise UserError(
            f"{artifact.path} has libraries for {', '.join(available)}; say with --target which "
            f"one {choice.name} runs."
        )
    return available[0] if available else wanted[0]  # of the latter the artifact says it lacks it


def host_logits(artifact: Artifact, images: Sequence[Image]) -> Logits | None:
    """Logits of the artifact's library for this host; None when it has none."""
    host = next((name for name in Host().targets() if name in artifact.manifest.libraries), None)
    if host is None:
        return None
    classes = artifact.manifest.model.num_classes
    program = HostDevice().load(artifact.library(host), classes)
    return np.concatenate([program.run(image) for image in images])


def random_images(size: int) -> list[LabelledImage]:
    """Images of random pixels, the same ones every time, without labels."""
    generator = np.random.default_rng(0)
    shape = (RANDOM_IMAGES, 1, size, size, 3)
    return [(image, None) for image in generator.integers(0, 256, shape, dtype=np.uint8)]


def _counted(
    images: Sequence[LabelledImage], advance: Callable[[int], None]
) -> Iterator[LabelledImage]:
    for index, image in enumerate(images):
        advance(index)
        yield image
