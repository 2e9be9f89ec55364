"""Building the emulated phone, starting it, and above all ending it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.device import emulator, emulator_install
from pipeline.device.emulator import build_emulator, emulated_device, start_emulator
from pipeline.device.emulator_install import EmulatorInstall
from pipeline.device.processes import run_process
from pipeline.device.tracker import Address, registered_keys, request_device, start_tracker
from pipeline.errors import UserError

NOWHERE = Address("127.0.0.1", 9)


def test_built_emulator_is_found_at_once(install: EmulatorInstall) -> None:
    start = time.perf_counter()
    assert build_emulator() == install
    assert time.perf_counter() - start < 0.5


def test_failed_build_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install: EmulatorInstall
) -> None:
    monkeypatch.setattr(emulator_install, "PACKAGES", ("pocketvit-no-such-package",))
    monkeypatch.setattr(emulator_install, "version", lambda name: "1.0")
    with pytest.raises(UserError, match="Downloading TVM's packages for aarch64 failed"):
        build_emulator(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_cross_compiler_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UserError, match="apt-get install g\\+\\+-aarch64-linux-gnu"):
        build_emulator(tmp_path)


def test_missing_qemu_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UserError, match="apt-get install qemu-user"):
        with start_emulator(EmulatorInstall(Path("/")), "cortex-a53", "key", NOWHERE):
            pass


@pytest.mark.parametrize("cpu", ["max", "max,sve=on", "max,sme=off,sve-max-vq=1"])
def test_cpu_with_sve_or_sme_is_refused(cpu: str) -> None:
    with pytest.raises(UserError, match="SVE or SME"):
        with emulated_device(cpu):
            pass


def test_unknown_cpu_and_impossible_key_are_refused() -> None:
    with pytest.raises(UserError, match="'pentium'; use one of: cortex-a53, cortex-a76"):
        with emulated_device("pentium"):
            pass
    with pytest.raises(UserError, match="device key"):
        with start_emulator(EmulatorInstall(Path("/")), "cortex-a53", 'a"b', NOWHERE):
            pass


def test_static_and_too_new_qemu_cannot_count(tmp_path: Path) -> None:
    fake = tmp_path / "qemu-aarch64"
    fake.write_text("#!/bin/sh\necho '-cpu model'\n")
    fake.chmod(0o755)
    assert "without plugins" in emulator.counting_problem(str(fake))
    fake.write_text("#!/bin/sh\necho '-plugin file' 'qemu-aarch64 version 10.0.2'\n")
    assert "QEMU 10" in emulator.counting_problem(str(fake))


def test_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"Port {port} .* cannot be used"):
            with start_tracker(port=port):
                pass


def test_tracker_that_does_not_answer_is_reported() -> None:
    with pytest.raises(UserError, match="127.0.0.1:9 does not answer"):
        registered_keys(NOWHERE)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address("127.0.0.1", silent.getsockname()[1])
        with pytest.raises(UserError, match="timed out"):
            registered_keys(address, timeout=0.2)


@pytest.mark.parametrize("text", ["localhost", ":9190", "host:", "host:99999", "host:x"])
def test_address_without_host_or_port_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="host:port"):
        Address.parse(text)


def test_emulator_leaves_no_process_file_or_registration(
    install: EmulatorInstall, tracker: Address
) -> None:
    with pytest.raises(RuntimeError, match="on purpose"):
        with start_emulator(install, "cortex-a53", "short", tracker) as device:
            request_device(tracker, "short", timeout=5)
            tree = _tree(device.process.supervisor.pid)
            assert len(tree) >= 2
            raise RuntimeError("on purpose")
    assert not any(process.is_running() for process in tree)
    assert not device.process.folder.exists()
    assert "short" not in registered_keys(tracker)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_children_end_when_their_parent_is_killed(ending: signal.Signals) -> None:
    script = (
        "import time; from pipeline.device.processes import run_process\n"
        "command = lambda folder: ['sh', '-c', 'sleep 100 & sleep 100']\n"
        "with run_process('sleeper', command, {}) as process:\n"
        "    print(process.supervisor.pid, process.folder, flush=True); time.sleep(100)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=_environment()
    ) as parent:
        assert parent.stdout is not None
        supervisor, folder = parent.stdout.readline().split()
        _wait_for(lambda: len(_tree(int(supervisor))) == 4)
        tree = _tree(int(supervisor))
        parent.send_signal(ending)
    _wait_for(lambda: not any(_alive(process) for process in tree))
    assert not Path(folder).exists()


def test_command_that_ends_early_is_quoted() -> None:
    with pytest.raises(UserError, match="The thing ended while starting: no luck"):
        with run_process("thing", lambda _: ["sh", "-c", "echo no luck"], {}) as process:
            process.wait_until(lambda: False, timeout=10)


def test_command_that_is_never_ready_is_given_up() -> None:
    with pytest.raises(UserError, match="The thing is not ready after 0.2 s"):
        with run_process("thing", lambda _: ["sleep", "100"], {}) as process:
            process.wait_until(lambda: False, timeout=0.2)


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
