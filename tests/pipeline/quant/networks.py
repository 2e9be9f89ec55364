"""Small networks of several kinds, for what must hold for each of them."""

from collections.abc import Callable

import torch
from torch import fx

from tests.pipeline.quant.conftest import Builder

aten = torch.ops.aten


def plain_transformer(b: Builder) -> fx.GraphModule:
    """Two blocks of attention and MLP with residual sums."""
    x = b.tokens(b.stem())
    x = b.call(aten.add.Tensor, x, b.random_constant(1, 64, 8))
    for _ in range(2):
        x = b.call(aten.add.Tensor, x, b.attention(b.norm(x)))
        hidden = b.call(aten.gelu.default, b.linear(b.norm(x), 16))
        x = b.call(aten.add.Tensor, x, b.linear(hidden, 8))
    return b.head(x)


def depthwise(b: Builder, x: fx.Node, stride: int) -> fx.Node:
    """A depthwise 3x3 convolution."""
    channels = x.meta["val"].shape[1]
    weight, bias = b.random_constant(channels, 1, 3, 3, std=0.3), b.random_constant(channels)
    settings = [stride] * 2, [1, 1], [1, 1], channels
    return b.call(aten.conv2d.default, x, weight, bias, *settings)


def inverted_residual(b: Builder, x: fx.Node, stride: int = 1) -> fx.Node:
    """Pointwise, depthwise, pointwise; with a sum where the shape stays."""
    hidden = b.call(aten.silu.default, b.conv(x, 12))
    hidden = b.call(aten.silu.default, depthwise(b, hidden, stride))
    result = b.conv(hidden, x.meta["val"].shape[1])
    return b.call(aten.add.Tensor, x, result) if stride == 1 else result


def hybrid(b: Builder) -> fx.GraphModule:
    """Inverted residuals, a transformer on a smaller map, and a concatenation around it."""
    x = inverted_residual(b, b.call(aten.silu.default, b.stem()))
    x = inverted_residual(b, x, stride=2)
    tokens = b.tokens(b.conv(x, 8, kernel=3, padding=1))
    tokens = b.call(aten.add.Tensor, tokens, b.attention(b.norm(tokens)))
    hidden = b.call(aten.silu.default, b.linear(b.norm(tokens), 16))
    tokens = b.call(aten.add.Tensor, tokens, b.linear(hidden, 8))
    turned = b.call(aten.permute.default, b.norm(tokens), [0, 2, 1])
    back = b.call(aten.reshape.default, turned, [1, 8, 4, 4])
    both = b.call(aten.cat.default, [x, b.conv(back, 8)], 1)
    return b.head(b.tokens(b.call(aten.silu.default, b.conv(both, 8))))


def convolutional(b: Builder) -> fx.GraphModule:
    """Inverted residuals alone, gated once by a mean over the map."""
    x = inverted_residual(b, b.call(aten.silu.default, b.stem()))
    gate = b.call(aten.mean.dim, x, [2, 3], True)
    gate = b.call(aten.sigmoid.default, b.conv(b.call(aten.relu.default, b.conv(gate, 4)), 8))
    x = b.call(aten.mul.Tensor, x, gate)
    return b.head(b.tokens(inverted_residual(b, b.conv(x, 8))))


def learned_queries(b: Builder) -> fx.GraphModule:
    """Attention of queries that no photo changes, and a product with a stored matrix."""
    x = b.norm(b.tokens(b.stem()))
    queries = b.random_constant(1, 6, 8, std=0.3)
    keys = b.call(aten.permute.default, b.linear(x, 8), [0, 2, 1])
    weights = b.call(aten.softmax.int, b.call(aten.matmul.default, queries, keys), -1)
    tokens = b.call(aten.matmul.default, weights, b.linear(x, 8))
    mixed = b.call(aten.matmul.default, b.norm(tokens), b.random_constant(8, 8, std=0.3))
    return b.head(b.call(aten.add.Tensor, tokens, mixed))


NETWORKS: dict[str, Callable[[Builder], fx.GraphModule]] = {
    "transformer": plain_transformer,
    "hybrid": hybrid,
    "convolutional": convolutional,
    "learned queries": learned_queries,
}
