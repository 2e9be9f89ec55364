"""The token side of Mobile-Former (section 3): tokens, and both bridges to the map."""

import torch
from torch import Tensor, nn

BRIDGE_HEADS, TOKEN_HEADS = 2, 4


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention; `[B, M, C]`, `[B, N, C]`, `[B, N, C]` -> `[B, M, C]`."""
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)


def positions(x: Tensor) -> Tensor:
    """`[B, C, H, W]` -> `[B, HW, C]`."""
    return x.flatten(2).transpose(1, 2)


class LocalToGlobal(nn.Module):
    """Mobile -> Former: tokens attend to the positions of the map, which are keys and values."""

    def __init__(self, channels: int, width: int) -> None:
        """Take the width of the map and of the tokens."""
        super().__init__()
        self.alpha = nn.Sequential(nn.Linear(width, channels), nn.Hardsigmoid())
        self.q = nn.Linear(width, channels)
        self.proj = nn.Linear(channels, width)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """`[B, C, H, W]` and `[B, T, d]` -> `[B, T, d]`."""
        keys = positions(x)
        mixed = attend(self.q(tokens), keys, keys, BRIDGE_HEADS) * self.alpha(tokens)
        result: Tensor = self.layer_norm(tokens + self.proj(2 * mixed))
        return result


class GlobalBlock(nn.Module):
    """Former: a transformer block on the tokens, normalised after the sums."""

    def __init__(self, width: int) -> None:
        """Take the width of the tokens."""
        super().__init__()
        self.q = nn.Linear(width, width)
        self.channel_mlp = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.ffn_norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, T, d]` -> `[B, T, d]`."""
        mixed = attend(self.q(tokens), tokens, tokens, TOKEN_HEADS)
        tokens = self.layer_norm(tokens + self.channel_mlp(mixed))
        result: Tensor = self.ffn_norm(tokens + self.ffn(tokens))
        return result


class GlobalToLocal(nn.Module):
    """Former -> Mobile: the positions of the map attend to the tokens."""

    def __init__(self, channels: int, width: int) -> None:
        """Take the width of the map and of the tokens."""
        super().__init__()
        self.k = nn.Linear(width, channels)
        self.proj = nn.Linear(width, channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """`[B, C, H, W]` and `[B, T, d]` -> `[B, C, H, W]`."""
        mixed = attend(positions(x), self.k(tokens), self.proj(tokens), BRIDGE_HEADS)
        return x + mixed.transpose(1, 2).reshape(x.shape)


class Hyper(nn.Module):
    """The parameters of a dynamic ReLU, two per channel of a map, from the first token."""

    def __init__(self, width: int, channels: int) -> None:
        """Take the width of the tokens and of the map."""
        super().__init__()
        self.hyper = nn.Sequential(
            nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, 2 * channels)
        )

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, T, d]` -> two gates in [0, 1], `[B, C, 1, 1]`."""
        first, second = self.hyper(tokens[:, 0]).chunk(2, 1)
        first, second = nn.functional.hardsigmoid(first), nn.functional.hardsigmoid(second)
        return first[..., None, None], second[..., None, None]


class DynamicReLU(nn.Module):
    """`max(a x, b x)` with a = 2 g in [0, 2] and b = 2 h - 1 in [-1, 1] (arXiv 2003.10027)."""

    def forward(self, x: Tensor, gates: tuple[Tensor, Tensor]) -> Tensor:
        """`[B, C, H, W]` and two gates `[B, C, 1, 1]`."""
        first, second = gates
        return torch.maximum(x * (2 * first), x * (2 * second - 1))
