"""MLP reconstruction of APHQ-ViT (CVPR 2025), section 3.3: each MLP learns to do with ReLU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

from pipeline.errors import UserError
from pipeline.quant import walk
from pipeline.quant.images import as_input
from pipeline.quant.importance.perturbation import average_perturbation_hessian
from pipeline.quant.initial import weight_and_bias
from pipeline.quant.mlp.rewrite import Mlp, find_mlps
from pipeline.quant.mlp.settings import MlpReconstruct
from pipeline.quant.plan import Plan
from pipeline.quant.stream import CPU, Values, in_chunks, over_photos
from pipeline.quant.student import Student
from pipeline.quant.units import Unit, rest_after, split_units

_SAMPLE = 1 << 22
"""Values of which a percentile is taken."""


@dataclass(frozen=True)
class MlpResult:
    """Trained tensors of one MLP.

    Attributes:
        expand: weight and bias of the first product.
        reduce: those of the second.
    """

    expand: tuple[Tensor, Tensor]
    reduce: tuple[Tensor, Tensor]


def reconstruct_mlps(
    graph: fx.GraphModule,
    plan: Plan,
    settings: MlpReconstruct,
    photos: Sequence[np.ndarray[Any, Any]],
    remembered: Callable[[Mlp], MlpResult | None] = lambda mlp: None,
    remember: Callable[[Mlp, MlpResult], None] = lambda mlp, result: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    device: torch.device = CPU,
) -> dict[str, MlpResult]:
    """Train all MLPs, each on what the float network feeds it.

    Args:
        graph: canonical graph.
        plan: its plan.
        settings: how to train.
        photos: uint8 `[H, W, 3]`.
        remembered: the result of an MLP that was trained before, if there is one.
        remember: takes the result of an MLP.
        progress: called with the number of steps done and their total.
        device: where MLPs run.

    Returns:
        Name of the activation -> trained tensors.

    Raises:
        UserError: the network has no such MLP.
    """
    mlps = find_mlps(graph.graph)
    if not mlps:
        raise UserError(
            "The model has no MLP of two linears or 1x1 convolutions around GELU or SiLU, so there "
            "is nothing to reconstruct with ReLU; remove [mlp] from the recipe."
        )
    student = Student(graph, plan, {}, {}, {}, device)
    (image,) = (n for n in graph.graph.nodes if n.op == "placeholder")
    values = {image: torch.stack([as_input(p, graph) for p in photos[: settings.images]])}
    total = len(mlps) * settings.iterations
    results: dict[str, MlpResult] = {}
    for unit in split_units(graph.graph):
        for mlp in (m for m in mlps if m.reduce in unit.nodes):
            result = remembered(mlp)
            before = len(results) * settings.iterations
            if result is None:
                training = _Training(student, settings, mlp, unit, device)
                result = training.run(values, partial(_advance, progress, before, total))
                remember(mlp, result)
            results[mlp.act.name] = result
            progress(before + settings.iterations, total)
        values = in_chunks(over_photos(student, unit), values, device)
    return results


@dataclass(frozen=True)
class _Training:
    student: Student
    settings: MlpReconstruct
    mlp: Mlp
    unit: Unit
    device: torch.device

    def run(self, values: Values, progress: Callable[[int], None]) -> MlpResult:
        settings, mlp, device = self.settings, self.mlp, self.device
        source = walk.input_of(mlp.expand)
        seen = in_chunks(over_photos(self.student, self.unit, (source, mlp.reduce)), values, device)
        x, y = _rows(mlp.expand, seen[source]), _rows(mlp.reduce, seen[mlp.reduce])
        weigh = self._importance(values).to(device)
        start = [self._tensors(product) for product in (mlp.expand, mlp.reduce)]
        bound = self._bound(x, start[0])
        trained = [t.clone().requires_grad_() for pair in start for t in pair]
        first_weight, first_bias, second_weight, second_bias = trained
        optimizer = torch.optim.Adam(trained, settings.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.iterations)
        random = torch.Generator().manual_seed(settings.seed)
        for step in range(settings.iterations):
            picked = torch.randperm(len(x), generator=random)[: settings.batch]
            wanted = y[picked].to(device)
            hidden = functional.linear(x[picked].to(device), first_weight, first_bias).relu()
            loss = torch.zeros((), device=device)
            # Without the first term, clipped units would never move: they have no gradient.
            for share, value in ((1, hidden), (2, hidden.clamp(max=bound))):
                error = functional.linear(value, second_weight, second_bias) - wanted
                loss = loss + share * (error.square() * weigh).mean(dim=(0, 2)).sum() / 10
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress(step + 1)
        shapes = [weight_and_bias(self.student.graph, n)[0].shape for n in (mlp.expand, mlp.reduce)]
        kept = [t.detach().cpu() for t in trained]
        return MlpResult(
            (kept[0].reshape(shapes[0]), kept[1]), (kept[2].reshape(shapes[1]), kept[3])
        )

    def _tensors(self, product: fx.Node) -> tuple[Tensor, Tensor]:
        """Weight `[O, K]` and bias `[O]`."""
        weight, bias = weight_and_bias(self.student.graph, product)
        weight = weight.flatten(1).to(self.device)
        return weight, weight.new_zeros(len(weight)) if bias is None else bias.to(self.device)

    def _bound(self, x: Tensor, start: tuple[Tensor, Tensor]) -> float:
        """The clamp: a percentile of the positive values of the activation as it was."""
        rows = x.flatten(0, 1)
        wanted = max(_SAMPLE // len(start[0]), 1)
        sample = rows[:: max(len(rows) // wanted, 1)].to(self.device)
        target = self.mlp.act.target
        assert callable(target)
        values = target(functional.linear(sample, *start)).flatten()
        positive = values[values > 0].sort().values
        if len(positive) == 0:
            return 0.0
        return float(positive[min(int(self.settings.clamp * len(positive)), len(positive) - 1)])

    def _importance(self, values: Values) -> Tensor:
        """Weights `[T, O]` of the MLP's outputs, of root mean square 1."""
        reduce = self.mlp.reduce
        if self.settings.importance == "none":
            return torch.ones(())
        some = {n: v[: self.settings.importance_images] for n, v in values.items()}
        rest = rest_after(self.student.graph.graph, reduce)
        known = over_photos(self.student, self.unit, rest.inputs)
        alive = in_chunks(known, some, self.device)
        outputs = {reduce: alive.pop(reduce)}
        found = average_perturbation_hessian(
            over_photos(self.student, rest), outputs, alive, self.device
        )[reduce]
        weigh = _rows(reduce, found.unsqueeze(0))[0]
        return weigh / weigh.square().mean().sqrt()


def _advance(progress: Callable[[int, int], None], before: int, total: int, steps: int) -> None:
    progress(before + steps, total)


def _rows(product: fx.Node, value: Tensor) -> Tensor:
    """Tokens `[I, T, channels]` of what a product reads or returns."""
    if product.target is walk.LINEAR:
        return value.flatten(1, -2)
    return value.flatten(-2).transpose(-1, -2).flatten(1, -2)
