"""How much of a network only moves data, before layouts are chosen and after."""

import json
from dataclasses import asdict, dataclass
from math import prod

import numpy as np
import tvm
from tvm import relax

from tvm_passes.graph.moves import copies_of
from tvm_passes.lowering.quantized import is_call, is_integer_call
from tvm_passes.ops.base import TensorSpec
from tvm_passes.rewrite import MAIN, main_bindings

MOVES = "pocketvit.moves_before_layout"  # function attribute, JSON


@dataclass(frozen=True)
class Moves:
    """Operators that only move data, and the bytes that they write."""

    operators: int
    written_bytes: int


@dataclass(frozen=True)
class Movement:
    """What of a network only moves data.

    Attributes:
        before: layouts are chosen.
        after: what is left of it, which is what the libraries do.
    """

    before: Moves
    after: Moves


def note_moves(mod: tvm.IRModule) -> tvm.IRModule:
    """The same module; what it moves becomes the attribute ``MOVES``, for ``movement``."""
    noted = mod.clone()
    noted[MAIN] = mod[MAIN].with_attr(MOVES, json.dumps(asdict(count_moves(mod))))
    return noted


def movement(mod: tvm.IRModule) -> Movement:
    """What a lowered module moves, and what it moved when ``note_moves`` saw it."""
    return Movement(Moves(**json.loads(mod[MAIN].attrs[MOVES])), count_moves(mod))


def count_moves(mod: tvm.IRModule) -> Moves:
    """What ``main`` moves; an operator that a kernel does on the way does not count."""
    specs = [TensorSpec.of(item.var) for item in main_bindings(mod) if moves_data(item.value)]
    sizes = [prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in specs]
    return Moves(len(sizes), sum(sizes))


def moves_data(expr: relax.Expr) -> bool:
    """Whether ``expr`` is an operator that only moves data."""
    copies = copies_of(expr)
    if copies is None:
        return is_integer_call(expr, "pad")
    if is_call(expr, "relax.permute_dims"):
        copy = copies[0].simplified()
        return copy.reads != copy.writes
    return True
