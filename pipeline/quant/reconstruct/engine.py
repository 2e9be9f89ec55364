"""The reconstruction engine: units in order, each trained to repeat what the float network does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

from pipeline.quant import walk
from pipeline.quant.constant_operands import restored_operands
from pipeline.quant.images import as_input
from pipeline.quant.importance.perturbation import average_perturbation_hessian
from pipeline.quant.initial import weight_and_bias, weight_format
from pipeline.quant.plan import Plan
from pipeline.quant.quantization import Quantization
from pipeline.quant.quantizers import Quantizer
from pipeline.quant.quantizers.uniform import UniformQuantizer
from pipeline.quant.recipe import Recipe
from pipeline.quant.reconstruct.masks import random_mask
from pipeline.quant.reconstruct.settings import Reconstruct
from pipeline.quant.reconstruct.trainable import TrainableFake, TrainableRounding
from pipeline.quant.stream import CPU, Values, in_chunks, over_photos
from pipeline.quant.student import Fake, Student
from pipeline.quant.units import Unit, merge_blocks, rest_after, split_units
from pipeline.quant.weights import QuantizedWeight

_COMPARED = 64
"""Photos on which a unit is compared with how it was."""


@dataclass(frozen=True)
class UnitResult:
    """What training a unit gives: see `Quantization`; empty where the start was better."""

    activations: Mapping[str, Quantizer]
    weights: Mapping[str, QuantizedWeight]


def reconstruct(
    graph: fx.GraphModule,
    plan: Plan,
    recipe: Recipe,
    settings: Reconstruct,
    photos: Sequence[np.ndarray[Any, Any]],
    found: Quantization,
    remembered: Callable[[Unit], UnitResult | None] = lambda unit: None,
    remember: Callable[[Unit, UnitResult], None] = lambda unit, result: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    device: torch.device = CPU,
    teacher: fx.GraphModule | None = None,
) -> Quantization:
    """Train rounding and scales of all units.

    Args:
        graph: canonical graph.
        plan: its plan.
        recipe: formats of weights.
        settings: how to train.
        photos: uint8 `[H, W, 3]`.
        found: the quantization to begin with.
        remembered: the result of a unit that was trained before, if there is one.
        remember: takes the result of a unit.
        progress: called with the number of steps done and their total.
        device: where units run; photos' tensors wait on the CPU.
        teacher: a graph of the same structure whose outputs are to be repeated; the same graph
            unless given.
    """
    engine = _Engine(graph, plan, recipe, settings, found, device, teacher or graph)
    return engine.run(photos, remembered, remember, progress)


class _Engine:
    def __init__(
        self,
        graph: fx.GraphModule,
        plan: Plan,
        recipe: Recipe,
        settings: Reconstruct,
        found: Quantization,
        device: torch.device,
        teacher: fx.GraphModule,
    ) -> None:
        self.graph, self.plan, self.recipe, self.settings = graph, plan, recipe, settings
        self.device = device
        self.exact = Student(teacher, plan, {}, {}, {}, device)
        self.twins = {node.name: node for node in teacher.graph.nodes}
        self.activations = dict(found.activations)
        self.weights = dict(found.weights)
        self.found = found
        self.operands = {n: t.to(device) for n, t in restored_operands(graph).items()}
        self.units = merge_blocks(split_units(graph.graph))

    def run(
        self,
        photos: Sequence[np.ndarray[Any, Any]],
        remembered: Callable[[Unit], UnitResult | None],
        remember: Callable[[Unit, UnitResult], None],
        progress: Callable[[int, int], None],
    ) -> Quantization:
        (image,) = (n for n in self.graph.graph.nodes if n.op == "placeholder")
        inputs = torch.stack([as_input(p, self.graph) for p in photos[: self.settings.images]])
        wanted: Values = {image: inputs}
        mine: Values = {image: inputs}
        total = len(self.units) * self.settings.iterations
        for index, unit in enumerate(self.units):
            targets = in_chunks(self._teacher(unit), wanted, self.device)
            result = remembered(unit)
            if result is None:
                before = index * self.settings.iterations
                tell = partial(_advance, progress, before, total)
                weights = self._importance(index, targets)
                with torch.random.fork_rng(devices=[]):
                    trained = self._train(unit, mine, wanted, targets, weights, tell)
                result = self._better(unit, trained, mine, targets, weights)
                remember(unit, result)
            self.activations |= result.activations
            self.weights |= result.weights
            mine = in_chunks(self._student(unit, result), mine, self.device)
            wanted = targets
            progress((index + 1) * self.settings.iterations, total)
        return replace(self.found, activations=self.activations, weights=self.weights)

    def _teacher(self, unit: Unit) -> Callable[[Values], Values]:
        """A unit of the teacher, as a function of tensors of this graph."""

        def twins(nodes: Sequence[fx.Node]) -> tuple[fx.Node, ...]:
            return tuple(self.twins[node.name] for node in nodes)

        twin = Unit(twins(unit.nodes), twins(unit.inputs), twins(unit.outputs))
        run_twin = over_photos(self.exact, twin)

        def run(values: Values) -> Values:
            results = run_twin({self.twins[node.name]: value for node, value in values.items()})
            return dict(zip(unit.outputs, results.values(), strict=True))

        return run

    def _student(self, unit: Unit, result: UnitResult) -> Callable[[Values], Values]:
        """A unit with everything quantized, what was trained as `result` says."""
        codes = {**self.weights, **result.weights}
        weights = self.operands | {
            n.name: codes[n.name].dequantized().to(self.device)
            for n in unit.products
            if n.name in codes
        }
        activations = {**self.activations, **result.activations}
        fakes = {key: quantizer.fake for key, quantizer in activations.items()}
        return over_photos(self._runner(fakes, weights, self.found.biases), unit)

    def _better(
        self, unit: Unit, trained: UnitResult, mine: Values, targets: Values, importance: Values
    ) -> UnitResult:
        """What was trained, or nothing where rounding for good made it worse than the start."""
        inputs = {node: value[:_COMPARED] for node, value in mine.items()}

        def error(result: UnitResult) -> float:
            outputs = in_chunks(self._student(unit, result), inputs, self.device)
            return sum(
                float(_loss(value, targets[n][:_COMPARED], _is_logits(n), importance.get(n)))
                for n, value in outputs.items()
            )

        start = UnitResult({}, {})
        return trained if error(trained) < error(start) else start

    def _runner(
        self, fakes: Mapping[str, Fake], weights: Mapping[str, Tensor], biases: Mapping[str, Tensor]
    ) -> Student:
        moved = {name: bias.to(self.device) for name, bias in biases.items()}
        return Student(self.graph, self.plan, fakes, weights, moved, self.device)

    def _importance(self, index: int, targets: Values) -> Values:
        """Weights of the errors of a unit's outputs; none where logits are compared."""
        if self.settings.importance == "none" or index + 1 == len(self.units):
            return {}
        rest = rest_after(self.graph.graph, self.units[index].nodes[-1])
        some = {n: v[: self.settings.importance_images] for n, v in targets.items()}
        return average_perturbation_hessian(self._teacher(rest), some, {}, self.device)

    def _train(
        self,
        unit: Unit,
        mine: Values,
        exact: Values,
        targets: Values,
        importance: Values,
        progress: Callable[[int], None],
    ) -> UnitResult:
        settings, device = self.settings, self.device
        torch.manual_seed(settings.seed)
        fakes = self._fakes(unit)
        rounding = {n.name: self._rounding(n) for n in unit.products if n.name in self.weights}
        weights = dict(self.operands)
        run = over_photos(self._runner(fakes, weights, self.found.biases), unit)
        optimizers, schedules = self._optimizers(fakes, rounding)
        random = torch.Generator().manual_seed(settings.seed)
        count = len(next(iter(mine.values())))
        source = mine if settings.inputs == "quantized" else exact
        weigh = {node: value.to(device) for node, value in importance.items()}
        first: float | None = None
        for step in range(settings.iterations):
            picked = torch.randperm(count, generator=random)[: settings.batch]
            batch = {
                node: _mixed(source[node][picked], exact[node][picked], settings.drop, random)
                for node in source
            }
            weights.update({name: r() for name, r in rounding.items()})
            outputs = run({node: value.to(device) for node, value in batch.items()})
            errors = [
                _loss(outputs[n], targets[n][picked].to(device), _is_logits(n), weigh.get(n))
                for n in unit.outputs
            ]
            loss = torch.stack(errors).sum()
            first = first or max(float(loss.detach()), 1e-30)
            loss = 2 * loss / first
            penalty = self._penalty(rounding, step)
            for optimizer in optimizers:
                optimizer.zero_grad()
            (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            for schedule in schedules:
                schedule.step()
            progress(step + 1)
        return UnitResult(
            {key: fake.quantizer() for key, fake in fakes.items()},
            {name: r.quantized() for name, r in rounding.items()},
        )

    def _optimizers(
        self, fakes: Mapping[str, TrainableFake], rounding: Mapping[str, TrainableRounding]
    ) -> tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.LRScheduler]]:
        settings = self.settings
        optimizers: list[torch.optim.Optimizer] = []
        if rounding:
            alphas = [r.alpha for r in rounding.values()]
            optimizers.append(torch.optim.Adam(alphas, settings.rounding_rate))
        free = [f.log_scale for f in fakes.values() if f.log_scale.requires_grad]
        if not free or not settings.scale_rate:
            return optimizers, []
        scales = torch.optim.Adam(free, settings.scale_rate)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(scales, settings.iterations)
        return [*optimizers, scales], [cosine]

    def _penalty(self, rounding: Mapping[str, TrainableRounding], step: int) -> Tensor | None:
        settings = self.settings
        start = settings.warmup * settings.iterations
        if step < start or not rounding:
            return None
        done = (step - start) / max(settings.iterations - start, 1)
        beta = 20 + (2 - 20) * done
        return (
            settings.regularizer * torch.stack([r.penalty(beta) for r in rounding.values()]).sum()
        )

    def _rounding(self, product: fx.Node) -> TrainableRounding:
        weight, _ = weight_and_bias(self.graph, product)
        target = weight_format(product.name, self.plan, self.recipe)
        return TrainableRounding(weight, self.weights[product.name], target).to(self.device)

    def _fakes(self, unit: Unit) -> dict[str, TrainableFake]:
        """Quantizers of the tensors of a unit; those of 16 bits have no error worth the time."""
        keys = [n.name for n in unit.nodes if n.name in self.activations]
        names = {n.name for n in unit.products}
        keys += [c.key for (product, _), c in self.plan.copies.items() if product in names]
        fakes = {}
        for key in dict.fromkeys(keys):
            start = self.activations[key]
            if isinstance(start, UniformQuantizer) and start.format.bits > 8:
                continue
            fake = TrainableFake(start, self.settings.drop, self.plan.heads.get(key))
            if isinstance(start, UniformQuantizer) and start.format.fixed is not None:
                fake.requires_grad_(False)
            fakes[key] = fake.to(self.device)
        return fakes


def _mixed(quantized: Tensor, exact: Tensor, drop: float, random: torch.Generator) -> Tensor:
    """Every element from either, the exact one with probability `drop`."""
    if drop == 0 or quantized is exact:
        return quantized
    return torch.lerp(quantized, exact, random_mask(quantized, drop, random))


def _loss(outputs: Tensor, wanted: Tensor, is_logits: bool, importance: Tensor | None) -> Tensor:
    if is_logits:
        flat, target = outputs.flatten(0, -2), wanted.flatten(0, -2)
        return functional.kl_div(
            flat.log_softmax(-1), target.log_softmax(-1), reduction="batchmean", log_target=True
        )
    error = (outputs - wanted).square()
    return (error if importance is None else error * importance).mean()


def _is_logits(node: fx.Node) -> bool:
    return any(user.op == "output" for user in walk.consumers(node))


def _advance(progress: Callable[[int, int], None], before: int, total: int, steps: int) -> None:
    progress(before + steps, total)
