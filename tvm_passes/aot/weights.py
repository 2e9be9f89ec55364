"""What the weights of every layer take in a library."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tvm import IRModule

from tvm_passes.aot.program import Program, linearize
from tvm_passes.graph.select import WEIGHT_BITS
from tvm_passes.kernels.registry import WEIGHTS


@dataclass(frozen=True)
class StoredWeights:
    """The weights of one layer as they lie in the library.

    Attributes:
        layer: its name, as a profile has it.
        bits: of a code: 8, or 2 to 6 where codes are packed.
        nbytes: what all of them take, with the least code of every channel where they are packed.
    """

    layer: str
    bits: int
    nbytes: int


def stored_weights(mod: IRModule) -> tuple[StoredWeights, ...]:
    """The weights of a module that ``tvm_passes.pipeline.to_kernels`` made, in order of layers.

    Weights that several layers share are those of the first one.
    """
    return weights_of(linearize(mod), mod)


def weights_of(program: Program, mod: IRModule) -> tuple[StoredWeights, ...]:
    """The weights of a module whose program is known; none where no kernel says it has any."""
    attributes = mod.attrs or {}
    bits = json.loads(str(attributes[WEIGHT_BITS])) if WEIGHT_BITS in attributes else {}
    found: dict[int, StoredWeights] = {}
    for layer in program.layers:
        if layer.kernel in bits:
            constant = program.tensors[layer.args[WEIGHTS]].buffer
            nbytes = program.constants[constant].nbytes
            found.setdefault(constant, StoredWeights(layer.name, bits[layer.kernel], nbytes))
    return tuple(found.values())


def bytes_by_bits(weights: Iterable[StoredWeights]) -> dict[int, int]:
    """Bytes of all weights of each width, narrowest first."""
    total: Counter[int] = Counter()
    for each in weights:
        total[each.bits] += each.nbytes
    return dict(sorted(total.items()))
