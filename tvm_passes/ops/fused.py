"""``fused``: a product and the element-wise operators that follow it, one kernel.

The operator says nothing about how it is computed: its reference runs the references of its steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tvm_passes.ops.base import OPERATORS, Operator, TensorSpec, decode, register


@dataclass(frozen=True)
class Step:
    """One operator of a fused call.

    Attributes:
        operator: its short name.
        config: its configuration, as ``encode`` writes it.
        inputs: what it works on: arguments of the fused call are counted first, then the results
            of the steps before.
    """

    operator: str
    config: str
    inputs: tuple[int, ...]

    def decoded(self) -> Any:
        """The configuration."""
        return decode(self.operator, self.config)


@dataclass(frozen=True)
class FusedConfig:
    """Operators in order; the last one's result is the output.

    Attributes:
        steps: the first is the anchor, a product; each of the others works on the result before.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        """Accept steps as plain dictionaries, as they come from JSON."""
        steps = (
            step
            if isinstance(step, Step)
            else Step(step["operator"], step["config"], tuple(step["inputs"]))
            for step in self.steps
        )
        object.__setattr__(self, "steps", tuple(steps))


def specs_of(config: FusedConfig, specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Specs of the arguments and of every step's result."""
    known = list(specs)
    for step in config.steps:
        inputs = [known[index] for index in step.inputs]
        known.append(OPERATORS[step.operator].infer(step.decoded(), inputs))
    return known


def _infer(config: FusedConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    return specs_of(config, specs)[-1]


def _reference(config: FusedConfig, *arrays: NDArray[Any]) -> NDArray[Any]:
    """Arguments of all steps -> the last step's output."""
    known = list(arrays)
    for step in config.steps:
        inputs = [known[index] for index in step.inputs]
        known.append(OPERATORS[step.operator].reference(step.decoded(), *inputs))
    return known[-1]


register(Operator("fused", FusedConfig, _infer, _reference))
