"""The TVM RPC tracker: start one, ask it for a device.

TVM's own client waits for ever when a tracker or a device does not answer; the two requests that we
need are spoken here over a socket with a time limit. Protocol: the docstring of `tvm.rpc.tracker`.
"""

import json
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.device.processes import pick_port, run_process
from pipeline.errors import UserError

TRACKER_MAGIC = 0x2F271
REQUEST, SUMMARY = 4, 6


@dataclass(frozen=True)
class Address:
    """Host and TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read ``host:port``.

        Raises:
            UserError: `text` has another form.
        """
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise UserError(f"'{text}' is not an address; write host:port, as in 127.0.0.1:9190.")
        return cls(host, int(port))

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Offer:
    """A device that the tracker has set aside for us.

    Attributes:
        address: where the device listens.
        match_key: one-time key that it expects.
    """

    address: Address
    match_key: str


@contextmanager
def start_tracker(
    host: str = "127.0.0.1", port: int | None = None, timeout: float = 60
) -> Iterator[Address]:
    """Run a tracker until the context ends.

    Args:
        host: address to listen at.
        port: TCP port; None takes a free one.
        timeout: seconds that it may take to start.

    Raises:
        UserError: the port is in use, or the tracker does not start.
    """
    address = Address(host, pick_port(host, port))
    command = [sys.executable, "-m", "tvm.exec.rpc_tracker", "--host", host]
    # the default end of the range is 9199: a higher port without --port-end is an empty range
    command += ["--port", str(address.port), "--port-end", str(address.port + 1)]
    # loading only the runtime halves the start
    environment = {"TVM_USE_RUNTIME_LIB": "1"}
    with run_process("RPC tracker", lambda _: command, environment) as process:
        process.wait_until(lambda: _answers(address), timeout)
        yield address


def registered_keys(tracker: Address, timeout: float = 5) -> list[str]:
    """Keys of the devices that are registered, busy or free, sorted.

    Raises:
        UserError: the tracker does not answer within `timeout` seconds.
    """
    summary = _ask(tracker, [SUMMARY], timeout)
    return sorted(server["key"].partition(":")[2] for server in summary["server_info"])


def request_device(tracker: Address, key: str, timeout: float) -> Offer:
    """Wait for a free device with this key.

    Args:
        tracker: the tracker's address.
        key: the key that the device registered under.
        timeout: seconds to wait.

    Raises:
        UserError: the tracker does not answer, or no such device is free in time.
    """
    known = registered_keys(tracker)
    try:
        host, port, match_key = _ask(tracker, [REQUEST, key, "", 1], timeout)
    except _NoAnswer as error:
        if key in known:
            raise UserError(
                f"The device '{key}' at tracker {tracker} is still busy after {timeout:g} s; "
                "end the other session or wait longer."
            ) from error
        raise UserError(
            f"No device with key '{key}' registered at tracker {tracker} within {timeout:g} s "
            f"(there are: {', '.join(known) or 'none'}); start it or correct the key."
        ) from error
    return Offer(Address(host, port), match_key)


class _NoAnswer(UserError):
    """The tracker is silent, gone, or no tracker."""


def _answers(tracker: Address) -> bool:
    try:
        registered_keys(tracker, timeout=1)
    except _NoAnswer:
        return False
    return True


def _ask(tracker: Address, command: list[Any], timeout: float) -> Any:
    """Send one command, return the value of its answer."""
    try:
        with socket.create_connection((tracker.host, tracker.port), timeout=timeout) as link:
            link.sendall(struct.pack("<i", TRACKER_MAGIC))
            if struct.unpack("<i", _receive(link, 4))[0] != TRACKER_MAGIC:
                raise ConnectionError("what listens there is not a TVM RPC tracker")
            message = json.dumps(command).encode()
            link.sendall(struct.pack("<i", len(message)) + message)
            answer = json.loads(_receive(link, struct.unpack("<i", _receive(link, 4))[0]))
    except OSError as error:
        raise _NoAnswer(
            f"The RPC tracker at {tracker} does not answer ({error}); start one with "
            "python -m tvm.exec.rpc_tracker, or correct its address."
        ) from error
    return answer[1]


def _receive(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = link.recv(size - len(data))
        if not chunk:
            raise ConnectionError("it closed the connection")
        data += chunk
    return data
