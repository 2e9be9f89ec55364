"""Makes timm importable beside a CPU build of torch; import this module before timm, everywhere.

timm imports torchvision, and torchvision's Python code refers to operators of its own binary. Where
that binary was built for another torch it does not load, and the import fails on the first missing
operator. No model here uses these operators, so declaring them is enough.
"""

import importlib.machinery
import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def torchvision_binary_loads() -> bool:
    """Whether torchvision is absent (nothing to mend) or its compiled operators load."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    folder = Path(spec.origin).parent
    names = ["_C" + suffix for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    binary = next((folder / name for name in names if (folder / name).exists()), None)
    if binary is None:
        return False
    try:
        torch.ops.load_library(binary)  # type: ignore[no-untyped-call]
    except (ImportError, OSError):
        return False
    return hasattr(torch.ops.torchvision, "nms")


def declare_missing_operators() -> torch.library.Library | None:
    """Declares `torchvision::nms` and `qnms` if torchvision's binary did not bring them.

    Returns:
        The library that owns the declarations (they live as long as it does), or None.
    """
    if torchvision_binary_loads():
        return None
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    return library


_LIBRARY = declare_missing_operators()

import timm.layers  # noqa: E402  (only importable once the operators exist)

# The fused attention kernel hides the logits and the probabilities, which get quantizers here.
timm.layers.set_fused_attn(False)
