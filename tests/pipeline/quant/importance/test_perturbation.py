"""The average perturbation Hessian is the exact product of the Hessian with ones."""

import torch
from torch import Tensor, fx

from pipeline.quant.importance.perturbation import TEMPERATURE, average_perturbation_hessian


def _nodes(count: int) -> list[fx.Node]:
    graph = fx.Graph()
    return [graph.placeholder(f"n{i}") for i in range(count)]


def test_it_is_the_hessian_of_the_divergence_times_ones() -> None:
    torch.manual_seed(0)
    out, beside, logits = _nodes(3)
    weight = torch.randn(6, 5)
    values, context = torch.randn(11, 6), torch.randn(11, 6)

    def rest(tensors: dict[fx.Node, Tensor]) -> dict[fx.Node, Tensor]:
        return {logits: (tensors[out] * tensors[beside]).tanh() @ weight}

    def divergence(x: Tensor, clean: Tensor, other: Tensor) -> Tensor:
        p, q = (((v * other).tanh() @ weight / TEMPERATURE).log_softmax(-1) for v in (clean, x))
        return (p.exp() * (p - q)).sum()

    wanted = torch.zeros(6)
    for x, other in zip(values, context, strict=True):
        hessian = torch.autograd.functional.hessian(
            lambda v, x=x, other=other: divergence(v, x, other), x
        )
        wanted += hessian.sum(dim=1).abs()
    found = average_perturbation_hessian(rest, {out: values}, {beside: context})[out]
    torch.testing.assert_close(found, wanted / wanted.mean(), rtol=1e-3, atol=1e-5)


def test_outputs_that_the_logits_ignore_weigh_the_same() -> None:
    out, logits = _nodes(2)
    found = average_perturbation_hessian(
        lambda tensors: {logits: tensors[out] * 0}, {out: torch.randn(3, 4)}, {}
    )
    assert torch.equal(found[out], torch.ones(4))
