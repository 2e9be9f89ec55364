"""The stream of photos through a network's units: tensors of many photos, a few at a time."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx

from pipeline.quant.student import Student, batched
from pipeline.quant.units import Unit

Values = dict[fx.Node, Tensor]
"""Tensors with a leading axis of photos."""

CPU = torch.device("cpu")

CHUNK = 8
"""Photos that run at a time where nothing is trained."""


def over_photos(
    student: Student, unit: Unit, wanted: Sequence[fx.Node] | None = None
) -> Callable[[Values], Values]:
    """A unit as a function of tensors of several photos.

    Args:
        student: runs it.
        unit: what is run.
        wanted: the tensors to return; the unit's outputs unless given.
    """
    outputs = unit.outputs if wanted is None else tuple(wanted)

    def run(values: Values) -> Values:
        keys = tuple(values)

        def one(*tensors: Tensor) -> tuple[Tensor, ...]:
            env = student.run(unit.nodes, dict(zip(keys, tensors, strict=True)))
            return tuple(env[node] for node in outputs)

        return dict(zip(outputs, batched(one)(*values.values()), strict=True))

    return run


def in_chunks(
    run: Callable[[Values], Values], values: Values, device: torch.device | None = None
) -> Values:
    """What `run` gives for all photos, without gradients; the result is on the CPU.

    Args:
        run: a function of tensors of several photos.
        values: its arguments.
        device: where it runs; where the values are unless given.
    """
    count = len(next(iter(values.values())))
    parts: list[Values] = []
    with torch.no_grad():
        for start in range(0, count, CHUNK):
            some = {n: v[start : start + CHUNK].to(device) for n, v in values.items()}
            parts.append({n: v.cpu() for n, v in run(some).items()})
    return {node: torch.cat([part[node] for part in parts]) for node in parts[0]}
