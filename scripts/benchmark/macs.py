"""Multiply-accumulates of every operator of an integer module, whatever its operators are.

An operator's NumPy reference is its definition: the module is interpreted once on a blank image,
and every matrix product that a reference performs is counted. New and fused operators need no rule
here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm

from tvm_passes.interpret import interpret
from tvm_passes.ops.base import OPERATORS, Operator, TensorSpec


@dataclass(frozen=True)
class OperatorWork:
    """One call of an integer operator.

    Attributes:
        operator: key of `OPERATORS`.
        macs: multiply-accumulates; 0 for operators without a product.
        shape: of its output.
    """

    operator: str
    macs: int
    shape: tuple[int, ...]


def count_operators(module: tvm.IRModule) -> list[OperatorWork]:
    """The integer operators of a module in order, with their work."""
    calls: list[OperatorWork] = []
    spec = TensorSpec.of(module["main"].params[0])
    with _watched(calls):
        interpret(module, np.zeros(spec.shape, spec.dtype))
    return calls


@contextmanager
def _watched(calls: list[OperatorWork]) -> Iterator[None]:
    """Let every reference report its call, and `numpy.matmul` its size."""
    operators, matmul = dict(OPERATORS), np.matmul
    macs = 0

    def counting(a: Any, b: Any, *args: Any, **options: Any) -> Any:
        nonlocal macs
        result = matmul(a, b, *args, **options)
        macs += np.size(result) * np.shape(a)[-1]
        return result

    def reporting(operator: Operator) -> Operator:
        def reference(*arguments: Any) -> Any:
            nonlocal macs
            before = macs
            result = operator.reference(*arguments)
            calls.append(OperatorWork(operator.name, macs - before, result.shape))
            return result

        return Operator(operator.name, operator.config, operator.infer, reference)

    np.matmul = counting  # type: ignore[assignment]
    try:
        OPERATORS.update({name: reporting(each) for name, each in operators.items()})
        yield
    finally:
        OPERATORS.update(operators)
        np.matmul = matmul
