"""The student: the float graph run with quantizers in place, for whole photos or unit by unit.

It computes what the QDQ graph computes, but quantizers and weights are plain callables and tensors,
so that they can be trained, mixed with float values or left out one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.constant_operands import constant_index
from pipeline.quant.plan import Plan, product_operands
from pipeline.quant.units import Unit

Fake = Callable[[Tensor], Tensor]
"""Quantizes and dequantizes a tensor."""


class Student:
    """Runs pieces of a graph with quantizers.

    Attributes:
        graph: canonical graph.
        plan: its plan.
        fakes: key of a tensor or narrow copy -> quantizer; tensors without one stay float.
        weights: product -> weight, or stored operand of a matmul, in place of its own.
        biases: product -> bias in place of its own.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        plan: Plan,
        fakes: Mapping[str, Fake],
        weights: Mapping[str, Tensor],
        biases: Mapping[str, Tensor],
        device: torch.device | None = None,
    ) -> None:
        """Keep references; the mappings may change between runs.

        The graph's own constants are read on `device`, where they are unless given.
        """
        self.graph, self.plan = graph, plan
        self.fakes, self.weights, self.biases = fakes, weights, biases
        self._constants = {name: t.to(device) for name, t in graph.named_buffers()}

    def run(
        self,
        nodes: Sequence[fx.Node],
        values: Mapping[fx.Node, Tensor],
        observe: Callable[[fx.Node, tuple[Tensor, ...], Tensor], None] | None = None,
    ) -> dict[fx.Node, Tensor]:
        """Run consecutive operators of the graph.

        Args:
            nodes: the operators.
            values: tensors of earlier operators that they read.
            observe: called for every product with what it reads and what it returns.

        Returns:
            The tensors of all operators, quantized where they are stored.
        """
        env: dict[fx.Node, Tensor] = dict(values)
        for node in nodes:
            if node.op == "placeholder":
                env[node] = self._stored(node.name, env[node])
                continue
            read = self._read(node, env)
            result = self._call(node, read)
            if observe is not None and node.target in walk.GEMMS:
                observe(node, tuple(read[t] for t in product_operands(node)), result)
            env[node] = self._stored(node.name, result)
        return env

    def unit(self, unit: Unit, inputs: Mapping[fx.Node, Tensor]) -> dict[fx.Node, Tensor]:
        """Outputs of a unit."""
        env = self.run(unit.nodes, inputs)
        return {node: env[node] for node in unit.outputs}

    def _stored(self, key: str, value: Tensor) -> Tensor:
        fake = self.fakes.get(key)
        return value if fake is None else fake(value)

    def _read(self, node: fx.Node, env: Mapping[fx.Node, Tensor]) -> dict[fx.Node, Tensor]:
        read = {
            n: self._constants[str(n.target)] if n.op == "get_attr" else env[n]
            for n in node.all_input_nodes
        }
        if node.target in walk.GEMMS:
            for index, tensor in enumerate(product_operands(node)):
                if (copy := self.plan.copies.get((node.name, index))) is not None:
                    read[tensor] = self._stored(copy.key, read[tensor])
        return read

    def _call(self, node: fx.Node, read: Mapping[fx.Node, Tensor]) -> Tensor:
        arguments: list[Any] = list(fx.map_arg(node.args, lambda n: read[n]))
        if node.name in self.weights:
            index = constant_index(node)
            assert index is not None
            arguments[index] = self.weights[node.name]
        if node.name in self.biases:
            arguments[2] = self.biases[node.name]
        assert callable(node.target)
        result = node.target(*arguments, **node.kwargs)
        assert isinstance(result, Tensor)
        return result


def batched(run: Callable[..., Any]) -> Callable[..., Any]:
    """`run` over a leading axis of photos: canonical graphs are written for one."""
    return torch.vmap(run, randomness="different")
