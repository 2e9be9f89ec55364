"""Count what a peer's or our inference executes on an emulated CPU."""

import tempfile
from pathlib import Path

from pipeline.device import RpcDevice, build_emulator, emulated_device
from pipeline.device.emulator import QEMU, counting_problem
from pipeline.device.emulator_install import require_program
from pipeline.device.profile import BlockProfile, parse_profile
from pipeline.errors import UserError
from pipeline.verbs.choice import EMULATED_TARGETS
from scripts.benchmark.contestants import ROOT, Entry, environment, start
from scripts.benchmark.environments import Cache
from scripts.benchmark.networks import CONV_NET
from scripts.benchmark.ours import CLASSES, build
from scripts.benchmark.peers import PEERS
from scripts.benchmark.source import Source
from scripts.benchmark.sysroot import device_python, make_site, sysroot_of

RUNS = 1  # counts are exact


def count_peer(cache: Cache, entry: Entry, cpu: str) -> BlockProfile:
    """Run a peer's aarch64 build on its prepared network under QEMU.

    Raises:
        UserError: a program is missing, or the peer fails.
    """
    qemu = require_program(QEMU, "qemu-user")
    if problem := counting_problem(qemu):
        raise UserError(f"{qemu} cannot count instructions: {problem}.")
    sysroot = sysroot_of(cache, cpu)
    site = make_site(cache, PEERS[entry.peer])
    variables = environment(1) | {
        "PYTHONHOME": str(sysroot / "usr"),
        "PYTHONPATH": f"{site}:{ROOT}",
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [qemu, "-plugin", f"{build_emulator().counter},out={folder}/profile"]
        command += ["-cpu", cpu, "-L", str(sysroot), str(device_python(sysroot))]
        with start([*command, *entry.arguments("serve")], variables) as worker:
            maps: str = worker.ask("count", RUNS)
        (profile,) = Path(folder).iterdir()
        return parse_profile(f"{profile.read_text()}maps\n{maps}", RUNS)


def count_ours(source: Source, variant: str, cpu: str) -> BlockProfile:
    """Run our library of a network for the best target that the CPU runs.

    Raises:
        UserError: the emulator cannot be built, or the library fails.
    """
    target = EMULATED_TARGETS[cpu][0]
    if source.facts["name"] == CONV_NET:
        from scripts.benchmark.conv_net import count_conv_net

        return count_conv_net(target, cpu)
    library = build(source, variant, target).library.path
    with emulated_device(cpu) as device, RpcDevice(device.tracker, device.key) as session:
        return session.load(library, CLASSES).count(source.pixels()[:1], RUNS, warmup=1)
