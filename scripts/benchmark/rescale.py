"""Rescale the channels of a trained MobileViT, exactly: the same network, harder to quantize.

Channels of linear tensors get factors of powers of two from 1/8 to 16, so that their ranges differ
by about 100x more than before, and whatever reads them has the inverse in its weights: outputs of
normalizations, values of attention, and the residual streams between linear bottlenecks. Logits
stay the same, bit for bit but for sums in another order.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.models import ModelSpec, load_model

EXPONENTS = (-3, 4)


def rescale(model: nn.Module, seed: int = 0) -> None:
    """Rescale timm's MobileViT in place.

    Args:
        model: with modules named as timm's `mobilevit_*`.
        seed: of the factors.
    """
    random = torch.Generator().manual_seed(seed)
    stages: Any = model.stages
    blocks = [block for stage in stages for block in stage]
    with torch.no_grad():
        for block in blocks:
            for layer in getattr(block, "transformer", ()):
                _norm(layer.norm1, layer.attn.qkv, random)
                _norm(layer.norm2, layer.mlp.fc1, random)
                _values(layer.attn, random)
        for stream, readers in _streams(blocks):
            factor = _factors(stream[0].weight.shape[0], random)
            for norm in stream:
                _times(factor, (norm.weight, norm.bias))
            for weight in readers:
                weight[:, : len(factor)] /= factor.reshape(1, -1, 1, 1)


def _streams(blocks: list[Any]) -> Iterable[tuple[list[Any], list[Tensor]]]:
    """Last norms of bottlenecks that add to one stream, and the weights that read it."""
    stream: list[Any] = []
    readers: list[Tensor] = []
    for block in blocks:
        is_bottleneck = hasattr(block, "conv3_1x1")
        if stream:
            first = block.conv1_1x1.conv if is_bottleneck else block.conv_kxk.conv
            readers.append(first.weight)
            if not is_bottleneck:
                readers.append(block.conv_fusion.conv.weight)
        adds = is_bottleneck and block.shortcut is not None
        if adds and stream:
            stream.append(block.conv3_1x1.bn)
            continue
        if stream:
            yield stream, readers
        # what adds to an activation cannot be rescaled
        stream = [block.conv3_1x1.bn] if is_bottleneck and not adds else []
        readers = []


def _factors(count: int, random: torch.Generator) -> Tensor:
    low, high = EXPONENTS
    return 2.0 ** torch.randint(low, high + 1, (count,), generator=random)


def _times(factor: Tensor, tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        tensor *= factor


def _norm(norm: Any, reader: Any, random: torch.Generator) -> None:
    factor = _factors(len(norm.weight), random)
    _times(factor, (norm.weight, norm.bias))
    reader.weight /= factor


def _values(attention: Any, random: torch.Generator) -> None:
    count = attention.proj.weight.shape[1]
    factor = _factors(count, random)
    attention.qkv.weight[-count:] *= factor.unsqueeze(1)
    attention.qkv.bias[-count:] *= factor
    attention.proj.weight /= factor


def main(
    name: Annotated[str, typer.Argument(help="timm's name, a MobileViT (v1).")],
    checkpoint: Annotated[Path, typer.Argument(help="Its weights, a .safetensors file.")],
    out: Annotated[Path, typer.Argument(help="The rescaled ones, a .safetensors file.")],
    num_classes: Annotated[int | None, typer.Option(help="Of the checkpoint.")] = None,
    seed: Annotated[int, typer.Option(help="Of the factors.")] = 0,
) -> None:
    """Write a checkpoint of the same network with very uneven channels."""
    model = load_model(ModelSpec(name, checkpoint=checkpoint, num_classes=num_classes)).module
    rescale(model, seed)
    with safe_open(checkpoint, "pt") as source:
        save_file(model.state_dict(), out, source.metadata())


if __name__ == "__main__":
    typer.run(main)
