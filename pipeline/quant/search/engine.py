"""The search engine: score a candidate axis in chunks, keep the best of every group.

All families of formats have two parameters (scale and zero point, scale and base, step and ratio).
A batch of candidates is a pair of tensors `[C, *groups]`: candidates by groups that are independent
of each other, such as output channels or heads.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Pair(NamedTuple):
    """Both parameters, `[C, *groups]` for candidates or `[*groups]` for a choice."""

    first: Tensor
    second: Tensor

    def at(self, index: Tensor) -> "Pair":
        """The choice `index [*groups]` of candidates."""
        picked = (p.gather(0, index.unsqueeze(0)).squeeze(0) for p in self)
        return Pair(*picked)

    def joined(self, other: "Pair") -> "Pair":
        """Candidates of both."""
        return Pair(torch.cat([self.first, other.first]), torch.cat([self.second, other.second]))

    def candidate(self) -> "Pair":
        """A choice as the only candidate."""
        return Pair(self.first.unsqueeze(0), self.second.unsqueeze(0))


Losses = Callable[[Pair], Tensor]
"""From candidates `[C, *groups]` to losses of the same shape; smaller is better."""


class Found(NamedTuple):
    """A choice and its loss, `[*groups]`."""

    pair: Pair
    loss: Tensor


def score(candidates: Pair, losses: Losses, chunk: int) -> Tensor:
    """Losses of all candidates, `chunk` at a time."""
    parts = zip(
        torch.split(candidates.first, chunk), torch.split(candidates.second, chunk), strict=True
    )
    return torch.cat([losses(Pair(*part)) for part in parts])


def best_of(candidates: Pair, losses: Losses, chunk: int = 16) -> Found:
    """The candidate with the least loss, for every group on its own."""
    scored = score(candidates, losses, chunk)
    index = scored.argmin(dim=0)
    return Found(candidates.at(index), scored.gather(0, index.unsqueeze(0)).squeeze(0))


def coarse_to_fine(
    candidates: Pair,
    spacing: Tensor,
    losses: Losses,
    steps: int = 6,
    keep: int = 16,
    chunk: int = 16,
) -> Found:
    """Progressive search: keep the best candidates, refine their first parameter, again.

    Source: AdaLog (ECCV 2024), section 3.4 (FPCS). Survivors stay in the race.

    Args:
        candidates: the coarse grid `[C, *groups]`.
        spacing: distance of its first parameters, `[*groups]`.
        losses: scores candidates.
        steps: rounds in all, the coarse one included.
        keep: survivors of a round; each gets `C / keep` children.
        chunk: candidates that are scored at a time.
    """
    count = candidates.first.shape[0]
    keep = min(keep, count)
    children = max(count // keep, 2)
    offsets = torch.linspace(0, 1, children) - 0.5
    offsets = offsets.reshape(-1, *[1] * candidates.first.dim())
    scored = score(candidates, losses, chunk)
    for _ in range(steps - 1):
        order = scored.topk(keep, dim=0, largest=False).indices
        kept = Pair(candidates.first.gather(0, order), candidates.second.gather(0, order))
        kept_scores = scored.gather(0, order)
        first = (kept.first + spacing * offsets).flatten(0, 1)
        first = torch.where(first > 0, first, kept.first.repeat(children, *[1] * spacing.dim()))
        second = kept.second.repeat(children, *[1] * spacing.dim())
        refined = Pair(first, second)
        scored = torch.cat([kept_scores, score(refined, losses, chunk)])
        candidates = kept.joined(refined)
        spacing = spacing / max(children - 0.5, 1.0)
    index = scored.argmin(dim=0)
    return Found(candidates.at(index), scored.gather(0, index.unsqueeze(0)).squeeze(0))
