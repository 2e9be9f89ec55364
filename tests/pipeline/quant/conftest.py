"""Small canonical graphs, written operator by operator."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx

aten = torch.ops.aten


class Builder:
    """Writes a canonical graph; every call also computes the shape of its result."""

    def __init__(self, size: int = 8, seed: int = 0) -> None:
        self.graph = fx.Graph()
        self.tensors: dict[str, Tensor] = {}
        self.random = torch.Generator().manual_seed(seed)
        self.image = self.graph.placeholder("image")
        self.image.meta["val"] = torch.empty(1, size, size, 3, device="meta")

    def constant(self, value: Tensor) -> fx.Node:
        name = f"c{len(self.tensors)}"
        self.tensors[name] = value
        node = self.graph.get_attr(name)
        node.meta["val"] = value.to("meta")
        return node

    def random_constant(self, *shape: int, std: float = 1.0) -> fx.Node:
        return self.constant(torch.randn(*shape, generator=self.random) * std)

    def call(self, target: Callable[..., Any], *args: Any, path: str = "") -> fx.Node:
        node = self.graph.call_function(target, args)
        shapes = fx.map_arg(args, lambda n: n.meta["val"])
        node.meta["val"] = target(*shapes)
        node.meta["module_path"] = path or f"layer{len(self.graph.nodes)}"
        return node

    def stem(self, channels: int = 8) -> fx.Node:
        """The image as NCHW, and a convolution over it."""
        pixels = self.call(aten.permute.default, self.image, [0, 3, 1, 2])
        return self.conv(pixels, channels, kernel=3, padding=1, std=0.2 / 128, path="stem")

    def conv(
        self,
        x: fx.Node,
        channels: int,
        kernel: int = 1,
        padding: int = 0,
        std: float = 0.3,
        path: str = "",
    ) -> fx.Node:
        weight = self.random_constant(channels, x.meta["val"].shape[1], kernel, kernel, std=std)
        bias = self.random_constant(channels, std=0.1)
        args = (x, weight, bias, [1, 1], [padding] * 2, [1, 1], 1)
        return self.call(aten.conv2d.default, *args, path=path)

    def linear(self, x: fx.Node, channels: int, path: str = "") -> fx.Node:
        weight = self.random_constant(channels, x.meta["val"].shape[-1], std=0.3)
        return self.call(
            aten.linear.default, x, weight, self.random_constant(channels, std=0.1), path=path
        )

    def norm(self, x: fx.Node) -> fx.Node:
        return self.call(aten.layer_norm.default, x, [x.meta["val"].shape[-1]], None, None, 1e-6)

    def tokens(self, x: fx.Node) -> fx.Node:
        """`[1, C, H, W]` as `[1, HW, C]`."""
        _, channels, height, width = x.meta["val"].shape
        flat = self.call(aten.reshape.default, x, [1, channels, height * width])
        return self.call(aten.permute.default, flat, [0, 2, 1])

    def attention(self, x: fx.Node, heads: int = 2) -> fx.Node:
        """Self-attention over `[1, N, C]` with one linear for q, k and v and a mask."""
        _, count, channels = x.meta["val"].shape
        qkv = self.linear(x, 3 * channels, path="attn.qkv")
        split = self.call(aten.reshape.default, qkv, [1, count, 3, heads, channels // heads])
        split = self.call(aten.permute.default, split, [2, 0, 3, 1, 4])
        q, k, v = (self.call(aten.select.int, split, 0, i) for i in range(3))
        k = self.call(aten.permute.default, k, [0, 1, 3, 2])
        logits = self.call(aten.matmul.default, q, k, path="attn.qk")
        logits = self.call(aten.add.Tensor, logits, self.random_constant(1, heads, count, count))
        weights = self.call(aten.softmax.int, logits, -1, path="attn.softmax")
        mixed = self.call(aten.matmul.default, weights, v, path="attn.av")
        mixed = self.call(aten.permute.default, mixed, [0, 2, 1, 3])
        mixed = self.call(aten.reshape.default, mixed, [1, count, channels])
        return self.linear(mixed, channels, path="attn.proj")

    def head(self, x: fx.Node, classes: int = 5) -> fx.GraphModule:
        """Mean over tokens `[1, N, C]`, linear, output."""
        pooled = self.call(aten.mean.dim, self.norm(x), [1], False)
        return self.finish(self.linear(pooled, classes, path="head"))

    def finish(self, result: fx.Node) -> fx.GraphModule:
        self.graph.output(result)
        self.graph.lint()
        return fx.GraphModule(self.tensors, self.graph)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors are tiny here: more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def builder() -> Builder:
    """An empty graph over 8x8 photos."""
    return Builder()


@pytest.fixture
def vit() -> fx.GraphModule:
    """One transformer block with position embedding, GELU and residual adds."""
    b = Builder()
    x = b.tokens(b.stem())
    x = b.call(aten.add.Tensor, x, b.random_constant(1, 64, 8), path="pos_embed")
    x = b.call(aten.add.Tensor, x, b.attention(b.norm(x)), path="block.add1")
    hidden = b.linear(b.norm(x), 16, path="mlp.fc1")
    hidden = b.call(aten.gelu.default, hidden, path="mlp.act")
    x = b.call(aten.add.Tensor, x, b.linear(hidden, 8, path="mlp.fc2"), path="block.add2")
    return b.head(x)


@pytest.fixture
def images() -> list[np.ndarray[Any, Any]]:
    """32 random photos."""
    random = np.random.default_rng(0)
    return list(random.integers(0, 256, (32, 8, 8, 3), dtype=np.uint8))
