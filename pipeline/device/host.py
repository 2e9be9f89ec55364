"""This machine as a device: the library through its C interface, as an application uses it.

The interface is `tvm_passes/aot/runtime/pocketvit.h`.
"""

import ctypes
import platform
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.device.profile import BlockProfile
from pipeline.device.session import Image, Logits, check_image, read_machine
from pipeline.errors import UserError

ABI_VERSION = 1


class _Options(ctypes.Structure):
    """`pocketvit_options`."""

    _fields_ = [("threads", ctypes.c_int32)]


class _Info(ctypes.Structure):
    """`pocketvit_info`."""

    _fields_ = [
        ("abi_version", ctypes.c_uint32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("num_classes", ctypes.c_int32),
        ("num_layers", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("logits_scale", ctypes.c_float),
        ("arena_bytes", ctypes.c_uint64),
        ("parameter_bytes", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("target", ctypes.c_char_p),
        ("isa", ctypes.c_char_p),
    ]


class HostDevice:
    """Runs libraries in this very process; see `session.Device`."""

    name = f"{platform.machine()} host"
    emulated = False

    def __init__(self, threads: int = 0) -> None:
        """Take this machine.

        Args:
            threads: the most that a library may use for one image; 0 lets it decide.
        """
        self._threads = threads

    def load(self, library: Path, classes: int) -> "HostProgram":
        """See `session.Device`."""
        machine = read_machine(library)
        if machine != platform.machine():
            raise UserError(
                f"{library} is made for {machine} and this host is {platform.machine()}; "
                "load the host's library, or run this one on an emulated device."
            )
        try:
            interface = _load(library)
            version = interface.pocketvit_abi_version()
        except (OSError, AttributeError) as error:
            raise UserError(
                f"{library} cannot be loaded as a PocketViT library ({error}); build it again."
            ) from error
        if version != ABI_VERSION:
            raise UserError(
                f"{library} has version {version} of the C interface, this is for {ABI_VERSION}; "
                "build it again with this PocketViT."
            )
        program = HostProgram(library, interface, self._threads)
        if program.classes != classes:
            raise UserError(
                f"{library} has {program.classes} classes instead of {classes}; "
                "give the labels or the reference that belong to it."
            )
        return program


def _load(library: Path) -> ctypes.CDLL:
    """Load a file under a name of its own: of a known name the loader returns what it had then."""
    with tempfile.TemporaryDirectory(prefix="pocketvit-") as folder:
        unique = Path(folder) / library.name
        unique.symlink_to(library.resolve())
        return ctypes.CDLL(str(unique))


class HostProgram:
    """A library loaded in this process; see `session.Program`.

    Attributes:
        classes: number of logits.
        image_shape: ``[1, H, W, 3]``.
        threads: how many threads work on one image.
    """

    def __init__(self, library: Path, interface: ctypes.CDLL, threads: int) -> None:
        """Made by `HostDevice.load`."""
        self._library = library
        self._interface = interface
        self._interface.pocketvit_status_text.restype = ctypes.c_char_p
        self._handle = ctypes.c_void_p()
        options = _Options(threads)
        self._check(interface.pocketvit_create(ctypes.byref(options), ctypes.byref(self._handle)))
        weakref.finalize(self, interface.pocketvit_destroy, self._handle)
        info = _Info()
        self._check(interface.pocketvit_get_info(self._handle, ctypes.byref(info)))
        self.classes: int = info.num_classes
        self.image_shape: tuple[int, ...] = (1, info.height, info.width, info.channels)
        self.threads: int = info.threads

    def run(self, image: Image) -> Logits:
        """See `session.Program`."""
        call, logits = self._prepare(image)
        call()
        return logits

    def time(self, image: Image, n: int, warmup: int) -> list[float]:
        """See `session.Program`."""
        call, _ = self._prepare(image)
        for _ in range(warmup):
            call()
        seconds = []
        for _ in range(n):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return seconds

    def count(self, image: Image, n: int, warmup: int) -> BlockProfile:
        """Not possible on real hardware.

        Raises:
            UserError: always.
        """
        raise UserError("The host cannot count instructions; count on an emulated device.")

    def _prepare(self, image: Image) -> tuple[Callable[[], None], Logits]:
        """Everything but the call itself, so that the call alone can be timed."""
        check_image(image)
        if image.shape != self.image_shape:
            raise UserError(
                f"{self._library} takes images of {list(self.image_shape)}, not "
                f"{list(image.shape)}; resize them first."
            )
        pixels = np.ascontiguousarray(image)
        logits = np.empty((1, self.classes), np.int32)
        arguments = tuple(ctypes.c_void_p(array.ctypes.data) for array in (pixels, logits))

        def call(_alive: tuple[Image, Logits] = (pixels, logits)) -> None:
            self._check(self._interface.pocketvit_run(self._handle, *arguments))

        return call, logits

    def _check(self, status: int) -> None:
        if status:
            text: bytes = self._interface.pocketvit_status_text(status)
            raise UserError(f"{self._library} failed: {text.decode()}; build it for this machine.")
