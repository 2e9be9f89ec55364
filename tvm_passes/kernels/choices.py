"""Which schedule each kernel is built with, and what is fused: by workload, as data in a file.

A workload says what a kernel computes, with its shapes and the types that tensors are stored in
(weights of few bits are ``int4``, say) but without the values of any quantizer, so that one choice
serves every calibration of a model. A file holds the choices for one ISA::

    {"isa": "neon-dotprod",
     "kernels": {"linear | int8[197,192] int8[192,192]": {"rows": 5, "vectors": 4, "block": 17,
                                                           "unroll": 2}},
     "apart": ["linear to int16 + pwl8 to int8 | int8[197,192] int8[768,192]"]}

The workloads under ``apart`` are fused ones whose steps get kernels of their own.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvm_passes.errors import LoweringError
from tvm_passes.kernels.isa import ISAS, Isa
from tvm_passes.kernels.registry import KERNELS
from tvm_passes.ops.base import TensorSpec
from tvm_passes.ops.fused import FusedConfig

GEOMETRY = ("strides", "dilation", "groups", "heads", "kernel", "padding", "before", "after")
Fields = Mapping[str, Any]


def workload(name: str, config: Any, specs: Sequence[TensorSpec]) -> str:
    """What a kernel computes, in one line.

    Args:
        name: the operator.
        config: its configuration.
        specs: its inputs.
    """
    if isinstance(config, FusedConfig):
        steps = [_described(step.operator, step.decoded()) for step in config.steps]
    else:
        steps = [_described(name, config)]
    tensors = [
        f"{spec.dtype}[{','.join(map(str, spec.shape))}]" for spec in specs if len(spec.shape) > 1
    ]
    return f"{' + '.join(steps)} | {' '.join(tensors)}"


def _described(name: str, config: Any) -> str:
    words = [name]
    for key in GEOMETRY:
        value = getattr(config, key, None)
        if value is not None:
            text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words.append(f"{key}={text}")
    words.append(f"to {config.dtype}" if hasattr(config, "dtype") else "")
    return " ".join(filter(None, words))


@dataclass(frozen=True)
class Choices:
    """Schedules of some workloads on one ISA.

    Attributes:
        isa: key of ``ISAS``.
        kernels: fields of the schedule by workload.
        apart: fused workloads that are taken to pieces again.
    """

    isa: str
    kernels: Mapping[str, Fields] = field(default_factory=dict)
    apart: tuple[str, ...] = ()

    def schedule(self, name: str, config: Any, specs: Sequence[TensorSpec], isa: Isa) -> Any:
        """The chosen schedule, the default one without a choice, or None if there are none.

        Raises:
            LoweringError: the choice is not among the schedules of the kernel.
        """
        space = KERNELS[name].space
        if space is None:
            return None
        key = workload(name, config, specs)
        if isa.name != self.isa or key not in self.kernels:
            return next(iter(space(config, specs, isa)), None)
        wanted = dict(self.kernels[key])
        for schedule in space(config, specs, isa):
            if dataclasses.asdict(schedule) == wanted:
                return schedule
        raise LoweringError(
            f"Kernel {key!r} has no schedule {json.dumps(wanted)} on {isa.name}; take one that "
            "fits its registers and its shape."
        )

    def save(self, path: Path) -> None:
        """Write a file."""
        content = {"isa": self.isa, "kernels": dict(self.kernels), "apart": list(self.apart)}
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_choices(path: Path) -> Choices:
    """Read a file.

    Raises:
        LoweringError: it cannot be read, is not such a file, or is for an unknown ISA.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        isa, kernels, apart = content["isa"], content["kernels"], content.get("apart", [])
        if not isinstance(apart, list) or not all(
            isinstance(item, dict) for item in kernels.values()
        ):
            raise TypeError("neither schedules nor a list of names")
    except OSError as error:
        raise LoweringError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoweringError(
            f"{path} is no kernel configuration; kernels.json beside a library of an artifact is."
        ) from error
    if isa not in ISAS:
        known = ", ".join(ISAS)
        raise LoweringError(f"{path} is no kernel configuration for one of {known}.")
    return Choices(isa, kernels, tuple(map(str, apart)))
