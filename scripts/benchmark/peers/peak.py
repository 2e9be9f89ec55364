"""The machine's int8 peak: nothing but independent dot products, compiled for this CPU."""

from pathlib import Path

from scripts.benchmark.peers.base import Job, Peer, Run, register

SOURCE = Path(__file__).with_name("peak.c")
ROUNDS = 20_000


def _prepare(job: Job) -> None:
    import subprocess

    command = ["cc", "-O2", "-march=native", "-shared", "-fPIC", str(SOURCE)]
    subprocess.run([*command, "-o", str(job.folder / "peak.so")], check=True)


def _load(job: Job) -> Run:
    import ctypes

    library = ctypes.CDLL(str(job.folder / "peak.so"))
    library.peak_macs.restype = ctypes.c_int64
    return lambda: library.peak_run(ctypes.c_int64(ROUNDS))


def peak_macs(folder: Path) -> int:
    """Multiply-accumulates of one run."""
    import ctypes

    library = ctypes.CDLL(str(folder / "peak.so"))
    library.peak_macs.restype = ctypes.c_int64
    macs: int = library.peak_macs(ctypes.c_int64(ROUNDS))
    return macs


register(Peer("peak", ("int8",), _prepare, _load))
