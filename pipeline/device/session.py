"""What a device can do with a built library, whatever and wherever the device is."""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.device.profile import BlockProfile
from pipeline.errors import UserError

RUN_FUNCTION = "pocketvit_run"
THREADS_FUNCTION = "pocketvit_set_threads"

Image = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.int32]


class Program(Protocol):
    """A library loaded on a device.

    Attributes:
        threads: how many threads work on one image.
    """

    @property
    def threads(self) -> int: ...  # noqa: D102

    def run(self, image: Image) -> Logits:
        """Classify one image.

        Args:
            image: uint8 ``[1, H, W, 3]``, RGB.

        Returns:
            int32 ``[1, classes]``.

        Raises:
            UserError: the library reports an error, or the device is lost.
        """

    def time(self, image: Image, n: int, warmup: int) -> list[float]:
        """Seconds of each of `n` runs, after `warmup` runs that are not reported.

        Raises:
            UserError: as `run`.
        """

    def count(self, image: Image, n: int, warmup: int) -> BlockProfile:
        """The instructions that `n` runs execute, after `warmup` runs that are not counted.

        Raises:
            UserError: as `run`; or the device cannot count.
        """


class Device(Protocol):
    """A machine that runs libraries.

    Attributes:
        name: what the user sees.
        emulated: whether times mean nothing and instructions can be counted.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def emulated(self) -> bool: ...  # noqa: D102

    def load(self, library: Path, classes: int) -> Program:
        """Bring a library to the device and load it.

        Args:
            library: shared library of an artifact.
            classes: number of logits.

        Raises:
            UserError: the file is missing, made for another machine, or lacks the function.
        """


def check_image(image: Image) -> None:
    """Refuse what the library would read wrongly.

    Raises:
        UserError: `image` is not uint8 ``[1, H, W, 3]``.
    """
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[0] != 1 or image.shape[3] != 3:
        raise UserError(
            f"A library takes one image as uint8 [1, H, W, 3], not {image.dtype} "
            f"{list(image.shape)}; resize and batch it first."
        )


def read_machine(library: Path) -> str:
    """The machine that a shared library is made for, as `platform.machine` calls it.

    Raises:
        UserError: the file is missing or no shared library.
    """
    machines = {62: "x86_64", 183: "aarch64", 40: "armv7l", 3: "i686"}
    try:
        header = library.read_bytes()[:20]
    except OSError as error:
        raise UserError(f"Cannot read the library {library}: {error.strerror}.") from error
    if header[:4] != b"\x7fELF" or len(header) < 20:
        raise UserError(f"{library} is not a shared library; give the .so of an artifact.")
    number = int.from_bytes(header[18:20], "little")
    return machines.get(number, f"ELF machine {number}")
