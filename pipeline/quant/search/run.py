"""The search over all products: both sides of each in turn, by the recipe's settings."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from pipeline.quant.formats import int8
from pipeline.quant.initial import weight_format
from pipeline.quant.plan import Plan
from pipeline.quant.quantizers import Format, Quantizer
from pipeline.quant.quantizers.uniform import Uniform
from pipeline.quant.recipe import Recipe
from pipeline.quant.roles import Role
from pipeline.quant.search import weights
from pipeline.quant.search.engine import Found, Losses, Pair, best_of, coarse_to_fine
from pipeline.quant.search.objectives import OBJECTIVES, Objective, ranking
from pipeline.quant.search.operands import Operand, Space, operand_of
from pipeline.quant.search.settings import Search
from pipeline.quant.sites import Paired, Site, Weighted, weighted_output

_CHUNK_ELEMENTS = 1 << 20
"""Outputs that are held at a time: they stay in the cache, mostly."""


@dataclass(frozen=True)
class Choice:
    """What a search found.

    Attributes:
        activations: key -> quantizer.
        rows: product -> scale and zero point of every output channel `[O]`.
    """

    activations: dict[str, Quantizer]
    rows: dict[str, Pair]


def search_products(
    graph: fx.Graph,
    plan: Plan,
    recipe: Recipe,
    settings: Search,
    sites: Mapping[str, Site],
    start: Mapping[str, Quantizer],
    importance: Mapping[str, Tensor],
    progress: Callable[[int, int], None] = lambda done, total: None,
    settled: Collection[str] = (),
) -> Choice:
    """Find the parameters of the operands of all products that were sampled.

    Args:
        graph: canonical graph.
        plan: its plan.
        recipe: formats of weights.
        settings: how to search.
        sites: samples by product.
        start: quantizers to begin with, by key.
        importance: weight of every sampled output, by product.
        progress: called with the number of operands done and their total.
        settled: keys of tensors whose quantizers stay as they are.
    """
    groups = list(_groups(graph, plan, sites))
    kept = _shared(groups).union(settled)
    search = _Search(plan, recipe, settings, importance, kept)
    choice = Choice({}, {})
    for done, (keys, members) in enumerate(groups, start=1):
        if isinstance(members[0], Weighted):
            group = [m for m in members if isinstance(m, Weighted)]
            search.weighted(keys[0], group, start, choice)
        else:
            assert isinstance(members[0], Paired)
            search.paired(keys, members[0], start, choice)
        progress(done, len(groups))
    return choice


def _groups(
    graph: fx.Graph, plan: Plan, sites: Mapping[str, Site]
) -> Iterator[tuple[tuple[str, ...], list[Site]]]:
    """Products that share an input are searched together, in the order of the graph."""
    by_input: dict[str, list[Site]] = {}
    order: list[tuple[str, ...]] = []
    for node in graph.nodes:
        site = sites.get(node.name)
        if site is None:
            continue
        if isinstance(site, Paired):
            order.append((plan.key_of(node, 0), plan.key_of(node, 1), node.name))
            continue
        key = plan.key_of(node, 0)
        if key not in by_input:
            order.append((key,))
        by_input.setdefault(key, []).append(site)
    for keys in order:
        yield (keys, by_input[keys[0]]) if len(keys) == 1 else (keys[:2], [sites[keys[2]]])


def _shared(groups: Sequence[tuple[tuple[str, ...], list[Site]]]) -> frozenset[str]:
    """Tensors that several groups read, or both sides of one product."""
    readers = Counter(key for keys, _ in groups for key in keys)
    return frozenset(key for key, count in readers.items() if count > 1)


def is_searched(target: Format) -> bool:
    """Whether the parameters of a format are free, and few enough bits to be worth a search."""
    return not (isinstance(target, Uniform) and (target.fixed or target.dtype != "int8"))


class _Search:
    def __init__(
        self,
        plan: Plan,
        recipe: Recipe,
        settings: Search,
        importance: Mapping[str, Tensor],
        settled: Collection[str],
    ) -> None:
        self.plan, self.recipe, self.settings = plan, recipe, settings
        self.importance, self.settled = importance, settled
        self.objective: Objective = OBJECTIVES[settings.objective]
        self.space = Space(settings.low, settings.high, settings.count, settings.zero_points)

    # Products with constant weights

    def weighted(
        self, key: str, sites: list[Weighted], start: Mapping[str, Quantizer], choice: Choice
    ) -> None:
        """Weights of all readers of one tensor, and the tensor's own parameters."""
        quantizer = choice.activations.get(key, start.get(key))
        searched = key not in choice.activations and self._is_searched(key)
        rows = {site.name: site.w for site in sites}
        inputs = self._restored(sites, quantizer)
        for _ in range(self.settings.rounds):
            sides = ["weights", "activations"]
            for side in sides if self.settings.first == "weights" else reversed(sides):
                if side == "weights":
                    for site, x in zip(sites, inputs, strict=True):
                        rows[site.name] = self._search_rows(site, x, choice)
                elif searched:
                    assert quantizer is not None
                    quantizer = self._search_input(key, sites, rows, quantizer)
                    inputs = self._restored(sites, quantizer)
        if searched and quantizer is not None:
            choice.activations[key] = quantizer

    def _search_rows(self, site: Weighted, x: Tensor, choice: Choice) -> Tensor:
        target = weight_format(site.name, self.plan, self.recipe)
        importance = self.importance.get(site.name)
        if self.settings.objective == "mse" and importance is None:
            losses = weights.quadratic_losses(site, x, target)
            size = site.w.numel()
        else:
            losses = weights.output_losses(site, x, target, self.objective, importance)
            size = site.y.numel()
        grid = weights.weight_grid(site.w, target, self.space)
        found = self._find(grid.pairs, grid.spacing, losses, size)
        choice.rows[site.name] = weights.as_rows(found.pair, site)
        return weights.fake_rows(site.w, found.pair.candidate(), target)[0]

    def _search_input(
        self, key: str, sites: list[Weighted], rows: Mapping[str, Tensor], start: Quantizer
    ) -> Quantizer:
        values = torch.cat([site.x.flatten() for site in sites])

        def losses_of(target: Format) -> tuple[Operand, Losses]:
            operands = [operand_of(site.x, target) for site in sites]

            def losses(pair: Pair) -> Tensor:
                total = torch.zeros(len(pair.first))
                for site, operand in zip(sites, operands, strict=True):
                    outputs = weighted_output(operand.fake(pair), rows[site.name])
                    wanted, importance = site.y, self.importance.get(site.name)
                    error = self.objective(
                        weights.by_photo(outputs, site),
                        weights.by_photo(wanted, site),
                        (),
                        None if importance is None else weights.by_photo(importance, site),
                    )
                    total += error * site.y[0].numel()
                return total

            return operand_of(values, target), losses

        size = sum(site.y.numel() + site.x.numel() for site in sites)
        return self._search_operand(start, losses_of, size)

    def _restored(self, sites: list[Weighted], quantizer: Quantizer | None) -> list[Tensor]:
        if quantizer is None:
            return [site.x for site in sites]
        return [quantizer.fake(site.x) for site in sites]

    # Products of two computed tensors

    def paired(
        self,
        keys: tuple[str, ...],
        site: Paired,
        start: Mapping[str, Quantizer],
        choice: Choice,
    ) -> None:
        """Both operands of a product in turn."""
        operands = [site.a, site.b]
        current = [choice.activations.get(key, start.get(key)) for key in keys]
        restored = [
            self._restore_paired(key, values, quantizer)
            for key, values, quantizer in zip(keys, operands, current, strict=True)
        ]
        for _ in range(self.settings.rounds):
            for index, key in enumerate(keys):
                quantizer = current[index]
                if quantizer is None or not self._is_searched(key):
                    continue
                found = self._search_side(site, index, key, restored[1 - index], quantizer)
                current[index] = choice.activations[key] = found
                restored[index] = self._restore_paired(key, operands[index], found)

    def _search_side(
        self, site: Paired, index: int, key: str, other: Tensor, start: Quantizer
    ) -> Quantizer:
        values = (site.a, site.b)[index]
        heads = self.plan.heads.get(key)
        axis = None if heads is None else 1
        importance = self.importance.get(site.name)
        is_logits = self._is_logits(site.name)

        def losses_of(target: Format) -> tuple[Operand, Losses]:
            operand = operand_of(values, target, axis, heads)

            def losses(pair: Pair) -> Tensor:
                fake = operand.fake(pair)
                outputs = fake @ other if index == 0 else other @ fake
                kept = () if axis is None else (2,)
                error = self.objective(outputs, site.y, kept, importance)
                if is_logits and self.settings.ranking and axis is None:
                    error = error + self.settings.ranking * ranking(outputs, site.y)
                return error

            return operand, losses

        return self._search_operand(start, losses_of, site.y.numel())

    def _restore_paired(self, key: str, values: Tensor, quantizer: Quantizer | None) -> Tensor:
        if quantizer is None:
            return values
        heads = self.plan.heads.get(key)
        operand = operand_of(values, quantizer.format, None if heads is None else 1, heads)
        if isinstance(quantizer.format, Uniform) and quantizer.format.fixed:
            return quantizer.fake(values)
        return operand.fake(operand.incumbent(quantizer))[0]

    def _is_logits(self, product: str) -> bool:
        return self.plan.roles.tensors.get(product) is Role.FUSED

    # Both

    def _is_searched(self, key: str) -> bool:
        """Whether the parameters of a tensor are free and worth a search.

        What one reader likes best may be bad for another: a tensor in several groups keeps its
        start.
        """
        return key not in self.settled and is_searched(self.plan.format_of_key(key))

    def _search_operand(
        self, start: Quantizer, losses_of: Callable[[Format], tuple[Operand, Losses]], size: int
    ) -> Quantizer:
        """The best quantizer over the schemes that the settings allow; the start competes."""
        target = start.format
        best: tuple[float, Quantizer] | None = None
        for form in self._schemes(target):
            operand, losses = losses_of(form)
            grid = operand.grid(self.space)
            found = self._find(grid.pairs, grid.spacing, losses, size)
            pair = found.pair
            if form == target:
                incumbent = operand.incumbent(start)
                held = losses(incumbent)[0]
                better = found.loss < held
                pair = Pair(
                    torch.where(better, pair.first, incumbent.first[0]),
                    torch.where(better, pair.second, incumbent.second[0]),
                )
                loss = float(torch.minimum(found.loss, held).mean())
            else:
                loss = float(found.loss.mean())
            if best is None or loss < best[0]:
                best = loss, operand.quantizer(pair)
        assert best is not None
        return best[1]

    def _schemes(self, target: Format) -> list[Format]:
        if not self.settings.schemes or not isinstance(target, Uniform) or target.symmetric:
            return [target]
        return [target, int8(target.bits, symmetric=True)]

    def _find(self, pairs: Pair, spacing: Tensor, losses: Losses, size: int) -> Found:
        chunk = max(_CHUNK_ELEMENTS // max(size, 1), 1)
        if self.settings.refine == 1:
            return best_of(pairs, losses, chunk)
        return coarse_to_fine(
            pairs, spacing, losses, self.settings.refine, self.settings.keep, chunk
        )
