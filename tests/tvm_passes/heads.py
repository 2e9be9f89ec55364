"""Attention with one scale per head, as an importer writes it, and how exact integers can be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from tests.tvm_passes.modules import Graph, build
from tvm_passes.ops.base import call
from tvm_passes.ops.qdq import DequantizeLogConfig, QuantizeLogConfig

Array = NDArray[Any]
Between = Callable[[Graph, relax.Expr], relax.Var]  # what happens to the probabilities


@dataclass(frozen=True)
class Heads:
    """One attention on codes [1, N, H*D].

    Attributes:
        q: scales of q, one for each head, the 1 / sqrt(D) included.
        k: of k.
        v: of v.
        width: D.
        tokens: N.
        out: scale of the output.
        zeros: zero points of q, k and v.
        bias: added to the logits, real.
    """

    q: Sequence[float]
    k: Sequence[float]
    v: Sequence[float]
    width: int
    tokens: int
    out: float
    zeros: tuple[int, int, int] = (0, 0, 0)
    bias: Array | None = None

    @property
    def heads(self) -> int:
        """H."""
        return len(self.q)

    def channels(self, scales: Sequence[float]) -> Array:
        """Scales of the channels of all heads."""
        return np.repeat(np.float32(scales), self.width)

    def split(self, graph: Graph, x: relax.Expr) -> relax.Var:
        """[1, N, H*D] -> [1, H, N, D]."""
        shape = (1, self.tokens, self.heads, self.width)
        return graph.emit(
            relax.op.permute_dims(graph.emit(relax.op.reshape(x, shape)), [0, 2, 1, 3])
        )

    def attend(
        self,
        graph: Graph,
        parts: Sequence[relax.Expr],
        between: Between | None = None,
        name: str = "attn",
    ) -> relax.Var:
        """From real q, k and v [1, N, H*D] to codes [1, N, H*D]."""
        q, k, v = (self.split(graph, part) for part in parts)
        turned = graph.emit(relax.op.permute_dims(k, [0, 1, 3, 2]))
        x = graph.emit(relax.op.matmul(q, turned))
        if self.bias is not None:
            x = graph.emit(relax.op.add(x, relax.const(self.bias.astype(np.float32))))
        p = graph.emit(relax.op.nn.softmax(x))
        if between is None:
            p = graph.stored(p, 2.0**-15, 0, "int16", name=f"{name}.softmax")
        else:
            p = between(graph, p)
        y = graph.quantize(graph.emit(relax.op.matmul(p, v)), self.out, 3, name=name)
        back = graph.emit(relax.op.permute_dims(y, [0, 2, 1, 3]))
        return graph.emit(relax.op.reshape(back, (1, self.tokens, self.heads * self.width)))

    def module(self, between: Between | None = None) -> tvm.IRModule:
        """Of q, k and v in codes."""

        def body(graph: Graph, *codes: relax.Var) -> relax.Expr:
            parts = [
                graph.dequantize(
                    part, self.channels(scales), np.full(self.heads * self.width, zero), axis=2
                )
                for part, scales, zero in zip(
                    codes, (self.q, self.k, self.v), self.zeros, strict=True
                )
            ]
            return self.attend(graph, parts, between)

        return build([((1, self.tokens, self.heads * self.width), "int8")] * 3, body)

    def codes(self, seed: int = 0, spread: float = 40.0) -> list[Array]:
        """q, k and v, with some extremes."""
        rng = np.random.default_rng(seed)
        shape = (1, self.tokens, self.heads * self.width)
        return [
            np.clip(rng.normal(size=shape) * spread + zero, -128, 127).astype(np.int8)
            for zero in self.zeros
        ]

    def bound(self) -> Array:
        """Greatest difference of output codes, [H*D], between integers and real arithmetic.

        A weight is off by 9e-4 of itself and 1.54e-5 of the greatest (see ``ops.attention``), by a
        step of the logits where there is a bias, which is rounded, and by a code of 2^-15 where it
        is stored; v spans 255 steps. Rounding adds one code.
        """
        steps = 255 * (9e-4 + (1.54e-5 + 2.0**-15) * self.tokens)
        if self.bias is not None:
            steps = steps + 255 * np.multiply(self.q, self.k)
        return self.channels(np.multiply(self.v, steps) / self.out) + 1


def uniform(step: float, zero_point: int, codes: tuple[int, int]) -> Between:
    """Uniform int8 codes of the probabilities."""
    return lambda graph, p: graph.stored(p, step, zero_point, "int8", codes=codes)


def adalog(q: int, bits: int) -> Between:
    """AdaLog codes of the probabilities."""
    one = np.array(1.0, np.float32)

    def between(graph: Graph, p: relax.Expr) -> relax.Var:
        codes = graph.emit(
            call("quantize_log", QuantizeLogConfig(q, 37, bits, 0.0, "attn"), p, one)
        )
        return graph.emit(call("dequantize_log", DequantizeLogConfig(q, 37, bits, 0.0), codes, one))

    return between
