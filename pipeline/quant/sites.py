"""Sites: where two operands meet in a product, with sampled values of both, in one common form.

Products with constant weights, convolutions included, become `[S, G, K] x [G, O, K]`: sampled
positions of the output, groups, elements of the reduction. Products of two computed tensors stay
`[I, H, M, K] x [I, H, K, N]` with sampled rows.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

from pipeline.quant import walk
from pipeline.quant.finite import FiniteInterpreter
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
        draws: positions that are taken in place of drawn ones, by product.
    """

    rows: int = 16
    images: int = 8
    seed: int = 0
    draws: Mapping[str, "Draw"] = field(default_factory=dict)


@dataclass(frozen=True)
class Draw:
    """Sampled positions of a product's output that were not drawn evenly.

    Attributes:
        positions: int64 `[photos, rows]`.
        counts: how many positions each stands for, relative to the mean, `[photos, rows]`.
        importance: weights of the errors of all positions, `[photos, all]`.
    """

    positions: Tensor
    counts: Tensor
    importance: Tensor


@dataclass(frozen=True)
class Weighted:
    """Samples of a product with constant weights.

    Attributes:
        name: of the product.
        x: inputs `[S, G, K]`; rows of one photo lie together.
        w: weights `[G, O, K]`.
        y: outputs `[S, G, O]` in float, without bias.
        moments: mean of `x^T x` over all positions, not only the sampled ones, `[G, K, K]`; each
            weighs as much as its importance where that is known.
        images: number of photos.
        positions: which rows of every photo's output were sampled, `[images, rows]`.
        counts: how many positions each of them stands for, relative to the mean, `[images, rows]`.
        reference: inputs that gave `y`, where `x` are not those themselves but what a quantized
            network makes of them.
    """

    name: str
    x: Tensor
    w: Tensor
    y: Tensor
    moments: Tensor
    images: int
    positions: Tensor
    counts: Tensor
    reference: Tensor | None = None

    @property
    def exact(self) -> Tensor:
        """Inputs of the float network, `[S, G, K]`."""
        return self.x if self.reference is None else self.reference


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
    sampler = SiteSampler(graph, sampling)
    interpreter = _Interpreter(graph, sampler)
    with torch.no_grad():
        for done, image in enumerate(images, start=1):
            interpreter.run(as_input(image, graph))
            sampler.end_photo()
            progress(done)
    return sampler.sites()


class SiteSampler:
    """Keeps samples of what products read, photo after photo.

    The positions depend on the seed and on the product's place in the graph alone.
    """

    def __init__(self, graph: fx.GraphModule, sampling: Sampling) -> None:
        """Start empty."""
        self._graph = graph
        self._sampling = sampling
        self._photo = 0
        self._kept: dict[fx.Node, list[tuple[Tensor, ...]]] = {}
        self._moments: dict[fx.Node, Tensor] = {}
        self._positions: dict[fx.Node, list[Tensor]] = {}
        self._generators = generators(graph.graph, sampling.seed)

    def observe(self, product: fx.Node, read: tuple[Tensor, ...]) -> None:
        """Sample what a product reads of one photo."""
        if product.target is not walk.MATMUL:
            self._kept.setdefault(product, []).append(self._rows(product, read[0]))
        elif is_sampled(product, self._photo, self._sampling):
            self._kept.setdefault(product, []).append(self._matrices(product, *read))

    def end_photo(self) -> None:
        """Tell that the next samples are of another photo."""
        self._photo += 1

    def sites(self) -> dict[str, Site]:
        """The samples of all products by name."""
        found: dict[str, Site] = {}
        for node, kept in self._kept.items():
            parts = [torch.cat(part) for part in zip(*kept, strict=True)]
            positions = torch.stack(self._positions[node])
            if node.target is walk.MATMUL:
                a, b = parts
                found[node.name] = Paired(node.name, a, b, a @ b, positions)
                continue
            (x,) = parts
            weight, _ = weight_and_bias(self._graph, node)
            w = weight.reshape(x.shape[1], -1, x.shape[2])
            moments = self._moments[node] / self._photo
            y = weighted_output(x, w)
            draw = self._sampling.draws.get(node.name)
            counts = torch.ones(positions.shape) if draw is None else draw.counts
            found[node.name] = Weighted(node.name, x, w, y, moments, self._photo, positions, counts)
        return found

    def _pick(self, node: fx.Node, count: int) -> Tensor:
        """Indices of sampled positions among `count`."""
        if (draw := self._sampling.draws.get(node.name)) is not None:
            picked = draw.positions[len(self._positions.get(node, ()))]
        else:
            order = torch.randperm(count, generator=self._generators[node])
            picked = order[: self._sampling.rows].sort().values
        self._positions.setdefault(node, []).append(picked)
        return picked

    def _rows(self, node: fx.Node, x: Tensor) -> tuple[Tensor, ...]:
        rows = x.reshape(-1, 1, x.shape[-1]) if node.target is walk.LINEAR else conv_rows(node, x)
        groups = rows.movedim(1, 0)
        draw = self._sampling.draws.get(node.name)
        weighed = (
            groups if draw is None else groups * draw.importance[self._photo].reshape(1, -1, 1)
        )
        moments = weighed.mT @ groups / len(rows)
        self._moments[node] = self._moments.get(node, torch.zeros_like(moments)) + moments
        return (rows[self._pick(node, len(rows))].clone(),)

    def _matrices(self, node: fx.Node, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        shapes = a.shape[:-2], b.shape[:-2]
        batch = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
        heads = batch[-1] if batch else 1
        a, b = (t.expand(*batch, -1, -1).reshape(-1, heads, *t.shape[-2:]) for t in (a, b))
        picked = self._pick(node, a.shape[-2])
        return a[:, :, picked].clone(), b.clone()


class _Interpreter(FiniteInterpreter):
    def __init__(self, graph: fx.GraphModule, sampler: SiteSampler) -> None:
        super().__init__(graph)
        self._sampler = sampler

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.target in walk.GEMMS:
            self._sampler.observe(n, tuple(self.env[t] for t in product_operands(n)))
        return value


def seen_by(quantized: Mapping[str, Site], exact: Mapping[str, Site]) -> dict[str, Site]:
    """Sites with what a quantized network's products read, and what they should return.

    Args:
        quantized: samples of the quantized network.
        exact: those of the float network, at the same positions.
    """
    found: dict[str, Site] = {}
    for name, site in quantized.items():
        other = exact[name]
        if isinstance(site, Weighted) and isinstance(other, Weighted):
            found[name] = replace(site, y=other.y, reference=other.x)
        else:
            found[name] = replace(site, y=other.y)
    return found


def is_sampled(product: fx.Node, photo: int, sampling: Sampling) -> bool:
    """Whether samples of a product are kept of the photo with this index."""
    if product.target is not walk.MATMUL:
        return product.target in walk.GEMMS
    return photo < sampling.images and not any(map(walk.is_constant, walk.operands(product)))


def generators(graph: fx.Graph, seed: int) -> dict[fx.Node, torch.Generator]:
    """A source of random positions for every product."""
    products = [n for n in graph.nodes if n.target in walk.GEMMS]
    return {
        node: torch.Generator().manual_seed(seed * 1_000_003 + index)
        for index, node in enumerate(products)
    }


def output_rows(node: fx.Node, value: Tensor) -> Tensor:
    """A tensor like a product's output in the graph, in the form of the `y` of its site.

    Returns:
        `[positions, G, O]`, or `[I, H, positions, N]`.
    """
    if node.target is walk.MATMUL:
        return value.reshape(-1, *value.shape[-3:])
    if node.target is walk.LINEAR:
        return value.reshape(-1, 1, value.shape[-1])
    rows = value.flatten(2).movedim(1, 2)
    groups = walk.conv_window(node)[3]
    return rows.reshape(-1, groups, rows.shape[-1] // groups)


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
