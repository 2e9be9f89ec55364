"""Registry of kernel generators, keyed by the integer operator's name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from tvm import tirx

from tvm_passes.kernels.isa import Isa
from tvm_passes.ops.base import TensorSpec


@dataclass(frozen=True)
class Kernel:
    """A generated kernel.

    Attributes:
        func: PrimFunc whose buffers are the operator's tensor inputs in order (constants as
            packed), then its output.
        pack: repacks constant inputs at build time, all together: maps input index to array, in
            and out. None where constants are used as they are.
    """

    func: tirx.PrimFunc
    pack: Callable[[Mapping[int, NDArray[Any]]], Mapping[int, NDArray[Any]]] | None = None


Generator = Callable[[Any, Sequence[TensorSpec], Isa], Kernel]

KERNELS: dict[str, Generator] = {}


def kernel(name: str) -> Callable[[Generator], Generator]:
    """Register ``generate(config, input specs, isa)`` as the kernel of operator ``name``."""

    def register(generate: Generator) -> Generator:
        KERNELS[name] = generate
        return generate

    return register
