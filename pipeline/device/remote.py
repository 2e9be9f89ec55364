"""A device behind a TVM RPC tracker: a phone, a board, or the emulator."""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline.device.profile import BlockProfile, parse_profile
from pipeline.device.session import (
    RUN_FUNCTION,
    THREADS_FUNCTION,
    Image,
    Logits,
    check_image,
    read_machine,
)
from pipeline.device.tracker import Address, Offer, registered_keys, request_device
from pipeline.errors import UserError

CONNECT_ATTEMPTS = 3
RECONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class DeviceInfo:
    """What our own server (`native/rpc_device.cc`) says about itself.

    Attributes:
        emulated_cpu: empty on real hardware.
        counts_instructions: whether ``dev.icount`` works.
        features: of neon, fp16, dotprod, i8mm, sve, sme.
        last_signal: the signal that ended the session before this one, or 0.
    """

    emulated_cpu: str
    counts_instructions: bool
    features: tuple[str, ...]
    last_signal: int


class RpcDevice(AbstractContextManager["RpcDevice"]):
    """A session on a remote device, which nobody else can use meanwhile; see `session.Device`.

    Attributes:
        info: None when the server is TVM's own.
    """

    def __init__(
        self,
        tracker: str | Address,
        key: str,
        timeout: float = 30,
        call_timeout: float = 600,
        threads: int = 0,
    ) -> None:
        """Wait for the device and open a session.

        Args:
            tracker: address, or text ``host:port``.
            key: the key that the device registered under.
            timeout: seconds to wait for the device to be free.
            call_timeout: seconds that any later call may take.
            threads: the most that a library may use for one image; 0 lets it decide.

        Raises:
            UserError: the tracker or the device does not answer, or there is no such device.
        """
        self._tracker = Address.parse(tracker) if isinstance(tracker, str) else tracker
        self._key = key
        self._call_timeout = call_timeout
        self._threads = threads
        import tvm.rpc  # noqa: F401 - takes seconds, in which an offer would lapse

        self._session = self._open(timeout)
        with self.reporting(timeout):
            self.info = _read_info(self._session)

    @property
    def name(self) -> str:
        """The key, or which CPU is emulated."""
        if self.info is None or not self.info.emulated_cpu:
            return self._key
        return f"emulated {self.info.emulated_cpu}"

    @property
    def emulated(self) -> bool:
        """Whether the server runs under QEMU."""
        return self.info is not None and self.info.emulated_cpu != ""

    def load(self, library: Path, classes: int) -> "RpcProgram":
        """See `session.Device`."""
        machine = read_machine(library)
        if self.info and machine != "aarch64":
            raise UserError(f"{library} is made for {machine}, {self.name} needs one for aarch64.")
        with self.reporting():
            self._session.upload(str(library))
            module = self._session.load_module(library.name)
            try:
                module[RUN_FUNCTION]
                threads = int(module[THREADS_FUNCTION](self._threads))
            except AttributeError as error:
                raise UserError(
                    f"{library} has no function {RUN_FUNCTION} or {THREADS_FUNCTION}; "
                    "build it with this PocketViT."
                ) from error
        return RpcProgram(self, self._session, module, classes, threads)

    def close(self) -> None:
        """Give the device back."""
        if self._session is not None:
            # it may be lost already, or hang
            with suppress(Exception), self.reporting(RECONNECT_SECONDS):
                self._session.get_function("CloseRPCConnection")()
            self._session = None

    def __exit__(self, *_: object) -> None:
        """Give the device back."""
        self.close()

    @contextmanager
    def reporting(self, seconds: float | None = None) -> Iterator[None]:
        """Limit the time of a remote call and say what went wrong in the user's terms.

        Args:
            seconds: None for the device's `call_timeout`.

        Raises:
            UserError: the call takes longer, fails on the device, or the connection is lost.
        """
        limit = self._call_timeout if seconds is None else seconds
        expired = threading.Event()

        def hang_up() -> None:
            expired.set()
            _shut_connections(self._offer.address)

        timer = threading.Timer(limit, hang_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # TVM raises its errors as many unrelated types
            if expired.is_set():
                raise UserError(
                    f"The device '{self._key}' did not answer within {limit:g} s; "
                    "it may hang: restart it, or allow more time."
                ) from error
            if _is_connection_loss(error):
                raise UserError(self._explain_loss()) from error
            if type(error).__name__ == "RPCError":
                reason = str(error).strip().splitlines()[-1]
                raise UserError(
                    f"The device '{self._key}' reports an error: {reason}; "
                    "give it images and a machine that the library was built for."
                ) from error
            raise
        finally:
            timer.cancel()

    def _open(self, timeout: float) -> Any:
        for _ in range(CONNECT_ATTEMPTS):
            self._offer = request_device(self._tracker, self._key, timeout)
            with self.reporting(timeout):
                try:
                    return _connect(self._offer)
                except RuntimeError as error:
                    if "matches key" not in str(error):  # the offer lapsed on its way to us
                        raise
        raise UserError(
            f"The device '{self._key}' refused the connection {CONNECT_ATTEMPTS} times; "
            "the way to it may be too slow: restart it, or measure from a nearer machine."
        )

    def _explain_loss(self) -> str:
        """Find out, from the device itself when it is back, why the session ended."""
        lost = f"The connection to the device '{self._key}' was lost"
        info = None
        if getattr(self, "info", None) is not None:
            info = _ask_again(self._tracker, self._key, self._offer.address)
        if info is None:
            return (
                f"{lost}: it was switched off or unplugged, or the library crashed there, perhaps "
                "on an instruction that its CPU lacks (dotprod, i8mm); restart it and try again."
            )
        if info.last_signal == signal.SIGILL:
            return (
                f"{lost}: the library uses an instruction that its CPU lacks, which has only "
                f"{', '.join(info.features)}; build for a target without dotprod or i8mm."
            )
        if info.last_signal:
            ended_by = signal.Signals(info.last_signal).name
            return f"{lost}: the library crashed there ({ended_by}); report how it was built."
        return f"{lost}, though the device runs; try again."


class RpcProgram:
    """A library loaded on a remote device; see `session.Program`.

    Attributes:
        threads: how many threads work on one image.
    """

    def __init__(
        self, device: RpcDevice, session: Any, module: Any, classes: int, threads: int
    ) -> None:
        """Made by `RpcDevice.load`."""
        self.threads = threads
        self._device = device
        self._session = session
        self._module = module
        self._cpu = session.cpu(0)
        self._image: Any = None
        with device.reporting():
            self._logits = _empty((1, classes), "int32", self._cpu)

    def run(self, image: Image) -> Logits:
        """See `session.Program`."""
        with self._device.reporting():
            self._module[RUN_FUNCTION](self._upload(image), self._logits)
            logits: Logits = self._logits.numpy()
        return logits

    def time(self, image: Image, n: int, warmup: int) -> list[float]:
        """See `session.Program`. Measured on the device, without the network."""
        with self._device.reporting():
            evaluate = self._module.time_evaluator(
                RUN_FUNCTION, self._cpu, number=1, repeat=warmup + n
            )
            seconds = evaluate(self._upload(image), self._logits).results
        return [float(second) for second in seconds[warmup:]]

    def count(self, image: Image, n: int, warmup: int) -> BlockProfile:
        """See `session.Program`."""
        if not (self._device.info and self._device.info.counts_instructions):
            raise UserError(
                f"The device '{self._device.name}' cannot count instructions; "
                "use an emulated device started with counting."
            )
        with self._device.reporting():
            count: Callable[..., Any] = self._session.get_function("dev.icount")
            arguments = (self._upload(image), self._logits)
            text = str(count(self._module, RUN_FUNCTION, warmup, n, *arguments))
        return parse_profile(text, n)

    def _upload(self, image: Image) -> Any:
        check_image(image)
        if self._image is None or tuple(self._image.shape) != image.shape:
            self._image = _empty(image.shape, "uint8", self._cpu)
        self._image.copyfrom(image)
        return self._image


def _connect(offer: Offer) -> Any:
    import tvm.rpc  # not at the top: takes seconds, and most commands need no device

    return tvm.rpc.connect(offer.address.host, offer.address.port, offer.match_key)


def _empty(shape: tuple[int, ...], dtype: str, device: Any) -> Any:
    import tvm.runtime

    return tvm.runtime.empty(shape, dtype, device)


def _read_info(session: Any) -> DeviceInfo | None:
    try:
        function = session.get_function("dev.info")
    except AttributeError:  # TVM's own server
        return None
    fields = json.loads(str(function()))
    return DeviceInfo(**{**fields, "features": tuple(fields["features"])})


def _ask_again(tracker: Address, key: str, address: Address) -> DeviceInfo | None:
    """What the same device says in a new session; None when it does not come back."""
    try:
        if key not in registered_keys(tracker):
            return None
        offer = request_device(tracker, key, RECONNECT_SECONDS)
        return _read_info(_connect(offer)) if offer.address == address else None
    except Exception:  # whatever it is, the first error is the one to report
        return None


def _is_connection_loss(error: Exception) -> bool:
    signs = ("kShutdown", "SockChannel", "Connection reset", "Broken pipe", "closed")
    return any(sign in str(error) for sign in signs)


def _shut_connections(address: Address) -> None:
    """End our TCP connections to this address, which wakes a call that waits for an answer."""
    resolved = {info[4][0] for info in socket.getaddrinfo(address.host, address.port)}
    for connection in psutil.Process().net_connections("tcp"):
        remote = connection.raddr
        if remote and remote.port == address.port and remote.ip in resolved:
            with socket.socket(fileno=os.dup(connection.fd)) as ours:
                ours.shutdown(socket.SHUT_RDWR)
