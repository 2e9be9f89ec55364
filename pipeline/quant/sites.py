"""Sites: where two operands meet in a product, with sampled values of both, in one common form.

Products with constant weights, convolutions included, become `[S, G, K] x [G, O, K]`: sampled
positions of the output, groups, elements of the reduction. Products of two computed tensors stay
`[I, H, M, K] x [I, H, K, N]` with sampled rows.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

from pipeline.quant import walk
from pipeline.quant.images import as_input
from pipeline.quant.initial import weight_and_bias
from pipeline.quant.plan import product_operands


@dataclass(frozen=True)
class Sampling:
    """How much of every product is kept.

    Attributes:
        rows: output positions per photo.
        images: photos of a product of two computed tensors, whose operands are large.
        seed: selects the positions.
    """

    rows: int = 16
    images: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Weighted:
    """Samples of a product with constant weights.

    Attributes:
        name: of the product.
        x: inputs `[S, G, K]`; rows of one photo lie together.
        w: weights `[G, O, K]`.
        y: outputs `[S, G, O]` in float, without bias.
        moments: mean of `x^T x` over all positions, not only the sampled ones, `[G, K, K]`.
        images: number of photos.
        positions: which rows of every photo's output were sampled, `[images, rows]`.
    """

    name: str
    x: Tensor
    w: Tensor
    y: Tensor
    moments: Tensor
    images: int
    positions: Tensor


@dataclass(frozen=True)
class Paired:
    """Samples of a product of two computed tensors.

    Attributes:
        name: of the product.
        a: `[I, H, M, K]`.
        b: `[I, H, K, N]`.
        y: `[I, H, M, N]` in float.
        positions: which rows of every photo's output were sampled, `[photos, M]`. A photo has
            several matrices, one after the other, where the graph cuts it into pieces.
    """

    name: str
    a: Tensor
    b: Tensor
    y: Tensor
    positions: Tensor


Site = Weighted | Paired


def weighted_output(x: Tensor, w: Tensor) -> Tensor:
    """Outputs `[..., S, G, O]` of `x [..., S, G, K]` and `w [..., G, O, K]`.

    One of the two may have a leading axis of candidates.
    """
    if x.shape[-2] > 1:
        return torch.einsum("...sgk,...gok->...sgo", x, w)
    flat = x.squeeze(-2)
    if w.dim() == 3:
        return (flat @ w[0].T).unsqueeze(-2)
    count, _, outputs, depth = w.shape
    joined = flat @ w.reshape(count * outputs, depth).T
    return joined.reshape(-1, count, outputs).movedim(1, 0).unsqueeze(-2)


def collect_sites(
    graph: fx.GraphModule,
    images: Iterable[np.ndarray[Any, Any]],
    sampling: Sampling,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Site]:
    """Run photos through a float graph once and keep samples of every product.

    Args:
        graph: canonical graph.
        images: uint8 `[H, W, 3]`.
        sampling: how much to keep.
        progress: called after every photo with the number done.
    """
    collector = _Collector(graph, sampling)
    with torch.no_grad():
        for done, image in enumerate(images, start=1):
            collector.run(as_input(image, graph))
            collector.photo += 1
            progress(done)
    return collector.sites()


class _Collector(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, sampling: Sampling) -> None:
        super().__init__(graph)
        self.graph_module = graph
        self.sampling = sampling
        self.photo = 0
        self.kept: dict[fx.Node, list[tuple[Tensor, ...]]] = {}
        self.generators: dict[fx.Node, torch.Generator] = {}
        self.positions: dict[fx.Node, list[Tensor]] = {}
        self.moments: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.target in walk.GEMMS:
            operands = tuple(self.env[t] for t in product_operands(n))
            if n.target is not walk.MATMUL:
                self.kept.setdefault(n, []).append(self._rows(n, operands[0]))
            elif self.photo < self.sampling.images and not any(
                map(walk.is_constant, walk.operands(n))
            ):
                self.kept.setdefault(n, []).append(self._matrices(n, *operands))
        return value

    def _generator(self, node: fx.Node) -> torch.Generator:
        if node not in self.generators:
            seed = self.sampling.seed * 1_000_003 + len(self.generators)
            self.generators[node] = torch.Generator().manual_seed(seed)
        return self.generators[node]

    def _pick(self, node: fx.Node, count: int) -> Tensor:
        """Indices of sampled positions among `count`."""
        order = torch.randperm(count, generator=self._generator(node))
        picked = order[: self.sampling.rows].sort().values
        self.positions.setdefault(node, []).append(picked)
        return picked

    def _rows(self, node: fx.Node, x: Tensor) -> tuple[Tensor, ...]:
        rows = x.reshape(-1, 1, x.shape[-1]) if node.target is walk.LINEAR else conv_rows(node, x)
        groups = rows.movedim(1, 0)
        moments = groups.mT @ groups / len(rows)
        self.moments[node] = self.moments.get(node, torch.zeros_like(moments)) + moments
        return (rows[self._pick(node, len(rows))].clone(),)

    def _matrices(self, node: fx.Node, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        shapes = a.shape[:-2], b.shape[:-2]
        batch = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
        heads = batch[-1] if batch else 1
        a, b = (t.expand(*batch, -1, -1).reshape(-1, heads, *t.shape[-2:]) for t in (a, b))
        picked = self._pick(node, a.shape[-2])
        return a[:, :, picked].clone(), b.clone()

    def sites(self) -> dict[str, Site]:
        """The samples of all products by name."""
        found: dict[str, Site] = {}
        for node, kept in self.kept.items():
            parts = [torch.cat(part) for part in zip(*kept, strict=True)]
            positions = torch.stack(self.positions[node])
            if node.target is walk.MATMUL:
                a, b = parts
                found[node.name] = Paired(node.name, a, b, a @ b, positions)
                continue
            (x,) = parts
            weight, _ = weight_and_bias(self.graph_module, node)
            w = weight.reshape(x.shape[1], -1, x.shape[2])
            moments = self.moments[node] / self.photo
            y = weighted_output(x, w)
            found[node.name] = Weighted(node.name, x, w, y, moments, self.photo, positions)
        return found


def sampled_outputs(node: fx.Node, site: Site, photo: int, value: Tensor) -> Tensor:
    """The part of a tensor like a product's output that belongs to the samples of one photo.

    Args:
        node: the product.
        site: its samples.
        photo: index of the photo.
        value: shaped like the product's output in the graph.

    Returns:
        `[rows, G, O]`, or `[I, H, rows, N]`: the photo's share of the site's `y`.
    """
    picked = site.positions[photo]
    if isinstance(site, Paired):
        return value.reshape(-1, *value.shape[-3:])[:, :, picked]
    groups = site.w.shape[0]
    rows = value if node.target is walk.LINEAR else value.flatten(2).movedim(1, 2)
    return rows.reshape(-1, groups, rows.shape[-1] // groups)[picked]


def conv_rows(node: fx.Node, x: Tensor) -> Tensor:
    """Inputs `[positions, G, K]` of all outputs of a convolution of `x [1, C, H, W]`."""
    weight = node.args[1]
    assert isinstance(weight, fx.Node)
    kernel = tuple(weight.meta["val"].shape[2:])
    stride, padding, dilation, groups = walk.conv_window(node)
    if set(kernel) == {1} and set(padding) == {0}:
        columns = x[:, :, :: stride[0], :: stride[1]].flatten(2)
    else:
        columns = functional.unfold(x, kernel, dilation, padding, stride)
    return columns[0].T.reshape(columns.shape[-1], groups, -1)
