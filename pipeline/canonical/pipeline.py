"""`canonicalize`: the ordered list of rewrites from a timm model to the canonical float graph."""

from collections.abc import Callable

import torch

from pipeline.canonical.absorb_downward import absorb_downward
from pipeline.canonical.absorb_upward import absorb_upward
from pipeline.canonical.arguments import spell_out_arguments
from pipeline.canonical.arithmetic import normalise_arithmetic
from pipeline.canonical.constants import fold_constants
from pipeline.canonical.dynamic_relu import rewrite_dynamic_relu
from pipeline.canonical.fold_shuffles import fold_shuffles
from pipeline.canonical.functional import make_functional
from pipeline.canonical.graph import GraphModule
from pipeline.canonical.group_convolutions import repeat_depthwise, ungroup_pointwise
from pipeline.canonical.identities import remove_identities
from pipeline.canonical.linear_attention import rewrite_weighted_sums
from pipeline.canonical.merge_projections import merge_projections
from pipeline.canonical.norms import split_batch_norm, split_norm_affine
from pipeline.canonical.pool_mixer import rewrite_pool_mixers
from pipeline.canonical.simplify_views import simplify_views
from pipeline.canonical.split_projections import split_projections
from pipeline.canonical.subsample import rewrite_subsampling
from pipeline.canonical.tidy import drop_unused, tidy
from pipeline.canonical.trace import trace
from pipeline.canonical.verify import check_equal, check_operators
from pipeline.canonical.views import normalise_views
from pipeline.models import LoadedModel

Pass = Callable[[GraphModule], None]

PASSES: tuple[tuple[str, Pass], ...] = (
    # One way to write each operator
    ("make_functional", make_functional),
    ("remove_identities", remove_identities),
    ("normalise_views", normalise_views),
    ("spell_out_arguments", spell_out_arguments),
    ("fold_constants", fold_constants),
    # Patterns that need their subtractions, pools and sums as the model wrote them
    ("rewrite_pool_mixers", rewrite_pool_mixers),
    ("rewrite_subsampling", rewrite_subsampling),
    ("rewrite_weighted_sums", rewrite_weighted_sums),
    # Everything affine becomes mul and add with a constant
    ("normalise_arithmetic", normalise_arithmetic),
    ("split_batch_norm", split_batch_norm),
    ("split_norm_affine", split_norm_affine),
    ("rewrite_dynamic_relu", rewrite_dynamic_relu),
    ("ungroup_pointwise", ungroup_pointwise),
    # Projections: one per role, then constants into their weights
    ("split_projections", split_projections),
    ("simplify_views", simplify_views),
    ("absorb_upward", absorb_upward),
    ("absorb_downward", absorb_downward),
    ("merge_projections", merge_projections),
    # Channels in the order of the fastest kernels
    ("repeat_depthwise", repeat_depthwise),
    ("simplify_views", simplify_views),
    ("fold_shuffles", fold_shuffles),
    # What the rewrites left behind
    ("remove_identities", remove_identities),
    ("simplify_views", simplify_views),
    ("spell_out_arguments", spell_out_arguments),
    ("tidy", tidy),
)
"""Rewrites in order; each takes a graph module and changes it in place, keeping its results."""


def canonicalize(
    loaded: LoadedModel, observe: Callable[[str, GraphModule], None] | None = None
) -> GraphModule:
    """Rewrites a model to the canonical float graph and proves that both agree.

    Args:
        loaded: the model and its preprocessing.
        observe: called with a pass's name and the graph after each pass, e.g. to print it.

    Returns:
        A graph module from `image`, float32 `[1, S, S, 3]` with values 0..255, to float32 logits
        `[1, num_classes]`. Preprocessing, normalisation constants and scales are in the weights.
        Nodes carry `meta["module_path"]` and `meta["val"]` (a meta tensor).

    Raises:
        UserError: the model cannot be exported, holds an operator that has no canonical form, or
            the result differs from it by more than 1e-4 of the largest logit.
    """
    gm = trace(loaded)
    for name, rewrite in PASSES:
        with torch.no_grad():
            rewrite(gm)
        drop_unused(gm)
        if observe is not None:
            observe(name, gm)
    check_operators(gm)
    check_equal(gm, loaded)
    return gm
