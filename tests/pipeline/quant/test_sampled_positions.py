"""Samples of products know where in the output they were taken."""

import pytest
import torch

from pipeline.quant import walk
from pipeline.quant.initial import weight_and_bias
from pipeline.quant.plan import make_plan
from pipeline.quant.recipe import Recipe
from pipeline.quant.sites import Sampling, collect_sites, output_rows
from pipeline.quant.student import Student


@pytest.mark.parametrize("target", [walk.CONV, walk.LINEAR, walk.MATMUL])
def test_positions_find_the_samples_in_the_output(vit, images, target) -> None:
    sites = collect_sites(vit, images[:3], Sampling(rows=5, images=3))
    nodes = [n for n in vit.graph.nodes if n.op in ("placeholder", "call_function")]
    student = Student(vit, make_plan(vit.graph, Recipe(name="x")), {}, {}, {})
    node = next(n for n in nodes if n.target is target)
    site = sites[node.name]
    parts = []
    for index, image in enumerate(images[:3]):
        value = student.run(nodes, {nodes[0]: torch.from_numpy(image).float().unsqueeze(0)})[node]
        if target is not walk.MATMUL:
            bias = weight_and_bias(vit, node)[1]
            value = value - (bias if target is walk.LINEAR else bias.reshape(1, -1, 1, 1))
        axis = 2 if target is walk.MATMUL else 0
        parts.append(output_rows(node, value).index_select(axis, site.positions[index]))
    torch.testing.assert_close(torch.cat(parts), site.y, rtol=1e-4, atol=1e-4)
