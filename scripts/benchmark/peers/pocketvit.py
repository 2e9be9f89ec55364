"""Our library for this machine, through its C interface."""

from scripts.benchmark.peers.base import Job, Peer, Run, register

LIBRARY = "library.so"


def _prepare(job: Job) -> None:
    import shutil

    from scripts.benchmark.ours import build

    shutil.copy(build(job.source, job.variant, "host").library.path, job.folder / LIBRARY)


def _load(job: Job) -> Run:
    from scripts.benchmark.ours import open_library

    program = open_library(job.folder / LIBRARY, job.threads)
    image = job.source.pixels()[:1]
    return lambda: program.run(image)


register(
    Peer(
        "pocketvit",
        ("int8 w8a8",),
        _prepare,
        _load,
        device_variants=("int8 w8a8",),
        keep=False,
    )
)
