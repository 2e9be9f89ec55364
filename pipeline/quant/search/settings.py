"""Settings of the search, as recipes give them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Search(BaseModel):
    """How the parameters of operands of products are searched.

    Attributes:
        objective: what is compared, a name of `OBJECTIVES`.
        importance: which errors count: all the same; `rows`: those of rows with large gradients are
            sampled more often; `fisher`: so as well, and each output's error is weighed by the
            squared gradient of a sampled label; `divergence`: by that of the network's own
            divergence.
        order: `parallel`, on the float network's inputs; `sequential`, unit by unit on those of
            the quantized network so far; or `bridges`, in parallel but for products between maps
            and tokens, each of which sees what those before it in its bridge do.
        first: which side begins.
        rounds: alternations of both sides.
        low: least multiple of the scale that covers the range.
        high: greatest multiple.
        count: candidates of a grid.
        zero_points: zero points that are tried beside every scale; 0 keeps that of the range.
        refine: steps of the progressive search; 1 is a plain grid.
        keep: survivors of each step.
        schemes: activations are tried symmetric and asymmetric.
        ranking: weight of the ranking loss on attention logits.
        rows: sampled output positions per photo; 0 for all.
        images: photos of products of two computed tensors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    objective: Literal["mse", "cosine", "pearson"] = "mse"
    importance: Literal["none", "fisher", "rows", "divergence"] = "none"
    order: Literal["parallel", "sequential", "bridges"] = "parallel"
    first: Literal["weights", "activations"] = "weights"
    rounds: int = Field(default=1, ge=1, le=20)
    low: float = Field(default=0.3, gt=0)
    high: float = Field(default=1.2, gt=0)
    count: int = Field(default=100, ge=2)
    zero_points: int = Field(default=0, ge=0)
    refine: int = Field(default=1, ge=1)
    keep: int = Field(default=16, ge=1)
    schemes: bool = False
    ranking: float = Field(default=0.0, ge=0)
    rows: int = Field(default=16, ge=0)
    images: int = Field(default=8, ge=1)
