"""Random networks of integer operators."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from random import Random
from typing import Any

import tvm
from hypothesis import strategies as st
from numpy.typing import NDArray
from tvm import relax

from tests.tvm_passes.graph.networks import ADD, REQUANTIZE, SWAPPED, mean_of, products, rows
from tests.tvm_passes.modules import Graph, build
from tests.tvm_passes.run_kernel import codes
from tvm_passes.graph.view_algebra import Layout, Permute, Shape, normalize
from tvm_passes.ops.base import TensorSpec, call
from tvm_passes.ops.matmul import MatmulConfig
from tvm_passes.ops.softmax import softmax_config

SIMILAR = MatmulConfig(True, 0, 0, False, 0, 1 << 24, 3, -128, 127, "int8")
SEEDS = st.integers(0, 2**32)


@dataclass(frozen=True)
class Draw:
    """Random graphs; a seed draws faster than hypothesis does step by step."""

    random: Random

    def shape(self, size: int) -> list[int]:
        """A shape of ``size`` elements."""
        shape = [1]
        while size > 1:
            primes = [prime for prime in (2, 3, 5, 7) if size % prime == 0]
            factor = self.random.choice(primes or [size])
            size //= factor
            if self.random.random() < 0.6:
                shape.append(factor)
            else:
                shape[-1] *= factor
        return shape

    def order(self, rank: int) -> list[int]:
        """A permutation."""
        return self.random.sample(range(rank), rank)

    def broadcast(self, shape: Sequence[int]) -> list[int]:
        """A shape that fits ``shape``, some of its extents and leading axes left out."""
        sizes = [self.random.choice([1, extent, extent]) for extent in shape]
        return sizes[self.random.randrange(len(sizes)) :]

    def layout(self, shape: Shape) -> Layout:
        """Any order of the elements of a tensor, or of its rows."""
        source = self.shape(prod(shape))
        order = self.order(len(source))
        if shape and self.random.random() < 0.5:
            source = [*self.shape(prod(shape[:-1])), shape[-1]]
            order = [*self.order(len(source) - 1), len(source) - 1]
        view = normalize(tuple(source), [Permute(tuple(order))])
        assert view is not None
        return view.layout

    def step(self, x: relax.Var, tensors: list[relax.Var]) -> relax.Expr:
        """An operator on ``x``; int8 in, int8 out."""
        shape = TensorSpec.of(x).shape
        axis = self.random.randrange(len(shape))
        peers = [other for other in tensors if TensorSpec.of(other).shape == shape]
        choices: dict[str, Callable[[], relax.Expr]] = {
            "reshape": lambda: relax.op.reshape(x, self.shape(prod(shape))),
            "permute": lambda: relax.op.permute_dims(x, self.order(len(shape))),
            "requantize": lambda: call("requantize", REQUANTIZE, x),
            "add": lambda: call("add", ADD, x, self.random.choice(peers)),
            "bias": lambda: call("add", ADD, x, codes("int8", *self.broadcast(shape))),
            "rows": lambda: rows(x),
            "product": lambda: products(x),
            "join": lambda: relax.op.concat([x, self.random.choice(peers)], axis),
            "cut": lambda: relax.op.strided_slice(x, [axis], [shape[axis] // 2], [shape[axis]]),
            "mean": lambda: mean_of(x, [axis], keepdims=True),
        }
        if len(shape) > 1:
            biases = self.broadcast([*shape[:-1], shape[-2]])
            choices["similarity"] = lambda: call("matmul", SIMILAR, x, x)
            choices["weights"] = lambda: weights(x, codes("int32", *biases) >> 16)
        return choices[self.random.choice(["reshape", "permute", *choices])]()

    def network(self) -> tvm.IRModule:
        """Up to a dozen operators on tensors of 48 elements and around."""

        def body(graph: Graph, *inputs: relax.Var) -> relax.Expr:
            tensors = list(inputs)
            for _ in range(self.random.randint(2, 12)):
                tensors.append(graph.emit(self.step(self.random.choice(tensors[-3:]), tensors)))
            return tensors[-1]

        return build([((1, 4, 2, 6), "int8"), ((48,), "int8")], body)


def weights(x: relax.Expr, bias: NDArray[Any]) -> relax.Expr:
    """Softmax of the similarities of all rows."""
    scores = call("matmul", SWAPPED, x, x)
    return call("softmax", softmax_config(1e-4, "int8"), scores, bias)
