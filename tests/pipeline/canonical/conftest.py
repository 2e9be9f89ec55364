"""Toy modules are traced and rewritten here; a rewrite must never change what they compute."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pipeline.canonical.arguments import spell_out_arguments
from pipeline.canonical.constants import fold_constants
from pipeline.canonical.functional import make_functional
from pipeline.canonical.graph import GraphModule, calls
from pipeline.canonical.identities import remove_identities
from pipeline.canonical.tidy import drop_unused
from pipeline.canonical.trace import from_exported
from pipeline.canonical.views import normalise_views
from pipeline.models.random_weights import randomize_constants

Rewrite = Callable[..., GraphModule]

NORMAL_FORM = (
    make_functional,
    remove_identities,
    normalise_views,
    spell_out_arguments,
    fold_constants,
)


def operators(gm: GraphModule) -> Counter[str]:
    """How often each operator occurs, by its short name."""
    return Counter(str(node.target).split(".")[1] for node in calls(gm))


@pytest.fixture
def rewrite() -> Rewrite:
    """`rewrite(module, x, *passes, normal=True)`: traces, applies, checks equality."""

    def run(module: nn.Module, x: Tensor, *passes: object, normal: bool = True) -> GraphModule:
        module = module.eval().requires_grad_(False)
        randomize_constants(module, torch.Generator().manual_seed(0))
        gm = from_exported(torch.export.export(module, (x,)))
        with torch.no_grad():
            for change in (*(NORMAL_FORM if normal else ()), *passes):
                change(gm)
            drop_unused(gm)
            torch.testing.assert_close(gm(x), module(x), rtol=1e-4, atol=1e-5)
        return gm

    return run


@pytest.fixture
def ops() -> Callable[[GraphModule], Counter[str]]:
    return operators


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)
