"""What tells one graph with its tensors from any other."""

import hashlib

from torch import fx


def fingerprint(graph: fx.GraphModule) -> str:
    """SHA-256 over the operators of a graph and the bytes of all its tensors."""
    digest = hashlib.sha256()
    for node in graph.graph.nodes:
        digest.update(f"{node.op} {node.name} {node.target} {node.args} {node.kwargs}\n".encode())
    for name, tensor in sorted(graph.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
