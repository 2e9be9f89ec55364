"""The runtimes, one per file."""

from scripts.benchmark.peers import litert, onnxruntime, openvino, peak, pocketvit, torch, tvm
from scripts.benchmark.peers.base import PEERS, Job, Peer, Run

__all__ = [
    "PEERS",
    "Job",
    "Peer",
    "Run",
    "litert",
    "onnxruntime",
    "openvino",
    "peak",
    "pocketvit",
    "torch",
    "tvm",
]
