"""PyTorch itself: eager, eager on channels-last tensors, and compiled."""

from scripts.benchmark.peers.base import Job, Peer, Run, register


def _prepare(job: Job) -> None:
    """Nothing to convert."""


def _load(job: Job) -> Run:
    import torch

    from scripts.benchmark.networks import load_network

    torch.set_num_threads(job.threads)
    network = load_network(job.source.facts["name"], fused_attention=True).module
    image = torch.from_numpy(job.source.image())
    if job.variant.endswith("channels last"):
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        image = image.to(memory_format=torch.channels_last)
    run = torch.compile(network) if job.variant.endswith("compiled") else network

    def infer() -> object:
        with torch.inference_mode():
            return run(image)

    return infer


register(Peer("torch", ("float32", "float32 channels last", "float32 compiled"), _prepare, _load))
