"""Bias correction: what quantization adds to the mean of every output is taken off its bias.

Source: Liu et al. (NeurIPS 2021), section 3.2, last paragraph.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.initial import weight_and_bias
from pipeline.quant.plan import Plan
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.sites import Site, Weighted, weighted_output
from pipeline.quant.weights import QuantizedWeight


def corrected_biases(
    graph: fx.GraphModule,
    plan: Plan,
    activations: Mapping[str, Quantizer],
    weights: Mapping[str, QuantizedWeight],
    sites: Mapping[str, Site],
) -> dict[str, Tensor]:
    """Biases `[O]` in place of those of all sampled products that have one."""
    found = {}
    for node in graph.graph.nodes:
        site = sites.get(node.name)
        if node.target not in walk.WEIGHTED or not isinstance(site, Weighted):
            continue
        _, bias = weight_and_bias(graph, node)
        if bias is None:
            continue
        source = activations.get(plan.key_of(node, 0))
        x = site.x if source is None else source.fake(site.x)
        w = weights[node.name].dequantized().reshape(site.w.shape)
        counts = site.counts.reshape(-1, 1, 1)
        error = ((weighted_output(x, w) - site.y) * counts).sum(dim=0) / counts.sum()
        found[node.name] = bias - error.reshape(torch.Size(bias.shape))
    return found
