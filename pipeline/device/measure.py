"""Measure a library on a device: speed or instructions, accuracy, equality with a reference."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from pipeline.device.cycles import DEFAULT_CORES, estimate_cycles
from pipeline.device.profile import count_classes
from pipeline.device.session import Device, Image, Logits, Program
from pipeline.errors import UserError

COUNTED_RUNS = 1  # counts are exact: integer code takes the same path every time


@dataclass(frozen=True)
class Latency:
    """Time of one inference on real hardware, over `runs` runs after the warm-up."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int


@dataclass(frozen=True)
class EmulatedCost:
    """Work of one inference on an emulated CPU; says nothing about milliseconds.

    Attributes:
        instructions: executed instructions of the library itself.
        by_class: the same by class, see `profile.INSTRUCTION_CLASSES`; empty without LLVM's tools.
        outside: executed instructions elsewhere (C library, TVM's runtime).
        estimated_cycles: by core, see `cycles`; empty without LLVM's tools.
    """

    instructions: float
    by_class: dict[str, float]
    outside: float
    estimated_cycles: dict[str, float]


@dataclass(frozen=True)
class Measurement:
    """Result of `measure`.

    Attributes:
        device: name of the device.
        emulated: whether it is an emulation; then `latency` is None.
        library_sha256: hash of the measured file.
        threads: how many threads worked on one image.
        latency: on real hardware.
        cost: on an emulated device that counts instructions.
        images: number of images that were run.
        labelled: how many of them had a label.
        top1: share of the labelled images whose largest logit is at the label; None without labels.
        differing_images: images with any logit that is not equal to the reference's; None without.
        notes: what could not be measured, and what to do about it.
    """

    device: str
    emulated: bool
    library_sha256: str
    threads: int
    latency: Latency | None
    cost: EmulatedCost | None
    images: int
    labelled: int
    top1: float | None
    differing_images: int | None
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(asdict(self), indent=2)


def measure(
    library: Path,
    device: Device,
    images: Iterable[tuple[Image, int | None]],
    classes: int,
    reference_logits: Logits | None = None,
    runs: int = 30,
    warmup: int = 5,
    cores: tuple[str, ...] = DEFAULT_CORES,
) -> Measurement:
    """Run a library over images on a device and measure it on the first of them.

    Args:
        library: shared library for the device.
        device: where to run it.
        images: uint8 ``[1, H, W, 3]`` and label; read one at a time.
        classes: number of logits.
        reference_logits: int32 ``[images, classes]``, for example of the integer reference.
        runs: timed runs, on real hardware.
        warmup: runs before them.
        cores: cores to estimate cycles for, on an emulated device.

    Raises:
        UserError: there is no image, the reference has another shape or type, or the device fails.
    """
    if reference_logits is not None:
        _check_reference(reference_logits, classes)
    stream = iter(images)
    first = next(stream, None)
    if first is None:
        raise UserError("There is no image to measure with; give a folder of photos.")
    program = device.load(library, classes)
    latency, cost = None, None
    notes: list[str] = []
    if device.emulated:
        cost, notes = _emulated_cost(program, library.name, first[0], cores)
    else:
        latency = _latency(program.time(first[0], runs, warmup))
    tally = _run_all(program, chain([first], stream), reference_logits)
    return Measurement(
        device=device.name,
        emulated=device.emulated,
        library_sha256=hashlib.sha256(library.read_bytes()).hexdigest(),
        threads=program.threads,
        latency=latency,
        cost=cost,
        images=tally.images,
        labelled=tally.labelled,
        top1=tally.right / tally.labelled if tally.labelled else None,
        differing_images=tally.differing if reference_logits is not None else None,
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Tally:
    images: int
    labelled: int
    right: int
    differing: int


def _run_all(
    program: Program,
    images: Iterator[tuple[Image, int | None]],
    reference_logits: Logits | None,
) -> _Tally:
    count = labelled = right = differing = 0
    for image, label in images:
        logits = program.run(image)
        if reference_logits is not None:
            if count == len(reference_logits):
                raise UserError(
                    f"There are more images than the {count} rows of the reference logits; "
                    "use the images that the reference was computed from, in their order."
                )
            differing += not np.array_equal(logits[0], reference_logits[count])
        if label is not None:
            labelled += 1
            right += int(np.argmax(logits)) == label
        count += 1
    if reference_logits is not None and count != len(reference_logits):
        raise UserError(
            f"There are {count} images and {len(reference_logits)} rows of reference logits; "
            "use the images that the reference was computed from, in their order."
        )
    return _Tally(count, labelled, right, differing)


def _latency(seconds: list[float]) -> Latency:
    p10, median, p90 = np.percentile(np.array(seconds) * 1e3, [10, 50, 90])
    return Latency(float(median), float(p10), float(p90), len(seconds))


def _emulated_cost(
    program: Program, library: str, image: Image, cores: tuple[str, ...]
) -> tuple[EmulatedCost | None, list[str]]:
    """Instructions and cycles, as far as the tools are there, and a note for each that is not."""
    try:
        profile = program.count(image, COUNTED_RUNS, warmup=1)
    except UserError as error:
        return None, [str(error)]
    by_library = profile.instructions()
    own = by_library.pop(library, 0.0)
    notes = []
    by_class: dict[str, float] = {}
    cycles: dict[str, float] = {}
    try:
        by_class = count_classes(profile, library)
        cycles = estimate_cycles(profile, library, cores)
    except UserError as error:
        notes.append(str(error))
    return EmulatedCost(own, by_class, sum(by_library.values()), cycles), notes


def _check_reference(reference_logits: Logits, classes: int) -> None:
    shape = reference_logits.shape
    if reference_logits.dtype != np.int32 or len(shape) != 2 or shape[1] != classes:
        raise UserError(
            f"Reference logits must be int32 [images, {classes}], not "
            f"{reference_logits.dtype} {list(shape)}; compute them with the integer reference."
        )
