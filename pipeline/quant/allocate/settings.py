"""Settings of mixed precision, as recipes give them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Width = Literal[2, 3, 4, 5, 6, 7, 8, 16]

WIDTHS: tuple[Width, ...] = (2, 3, 4, 5, 6, 7, 8, 16)


def mean_bits(width: int) -> int:
    """Mean bits of weights and activations: weights have 8 at most."""
    return (min(width, 8) + width) // 2


class Mixed(BaseModel):
    """Products get bits of their own, weights and activations alike.

    There are no codes of 9 to 15 bits. What stands for them is 16: activations of 16 bits with
    weights of 8, which counts as 12 in an average and as 8 in a size.

    Attributes:
        average: bits to reach, the mean over all weights; those of the recipe when absent.
        size_mb: bytes of all weights to reach instead, in units of 10^6.
        choices: bits that a group may have; when absent those up to 2 away from the average, 16 in
            place of more than 8, and for a size all.
        score: how harm is estimated, by the nuclear norm of a group's outputs times their squared
            error (`nuclear`; stem and head keep the bits of the recipe), or by the noise in the
            logits (`sqnr`). The former is the paper's and cheap, but blind to what late layers do
            to the logits: it may lose to uniform bits, at averages below 6 badly.
        groups: attention and MLP blocks as a whole (`blocks`), or single products as far as the
            tensors that they read allow (`products`).
        images: photos that scores are estimated on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    average: float | None = Field(default=None, ge=2, le=12)
    size_mb: float | None = Field(default=None, gt=0)
    choices: Annotated[tuple[Width, ...], Field(strict=False, min_length=1)] | None = None
    score: Literal["nuclear", "sqnr"] = "sqnr"
    groups: Literal["blocks", "products"] = "blocks"
    images: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _has_one_target(self) -> "Mixed":
        if self.average is not None and self.size_mb is not None:
            raise ValueError("average and size_mb exclude each other")
        return self

    def average_of(self, bits: int) -> float:
        """The average to reach in a recipe of so many bits."""
        return bits if self.average is None else self.average

    def widths(self, bits: int) -> tuple[int, ...]:
        """Bits that a group may have in a recipe of so many, in ascending order."""
        if self.choices is not None:
            return tuple(sorted(set(self.choices)))
        if self.size_mb is not None:
            return WIDTHS[:-1]
        average = self.average_of(bits)
        near = {w for w in WIDTHS[:-1] if abs(w - average) <= 2}
        return tuple(sorted(near | ({16} if average + 2 > 8 else set())))
