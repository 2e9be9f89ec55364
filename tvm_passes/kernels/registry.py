"""Registry of kernel families, keyed by the integer operator's name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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


Generator = Callable[..., Kernel]
Schedules = Callable[[Any, Sequence[TensorSpec], Isa], Iterable[Any]]
Constants = Mapping[int, NDArray[Any]]  # by index of the argument
Narrow = Callable[[Any, Sequence[TensorSpec], Constants, Isa], str]
WEIGHTS = 1  # the argument that ``Family.narrow`` is about


@dataclass(frozen=True)
class Family:
    """The kernels of one operator.

    Attributes:
        generate: ``(config, input specs, isa)``, and the schedule as a fourth argument where there
            are any, None for the default.
        space: ``(config, input specs, isa)`` to all schedules, frozen dataclasses of integers and
            strings, the default first. None where there is nothing to choose.
        narrow: ``(config, input specs, constants, isa)`` to the type that weights are stored in:
            int2 to int6 where their codes fit and the library gets smaller, int8. None where the
            operator has none.
    """

    generate: Generator
    space: Schedules | None = None
    narrow: Narrow | None = None

    def __call__(
        self, config: Any, specs: Sequence[TensorSpec], isa: Isa, schedule: Any = None
    ) -> Kernel:
        """Generate a kernel; without a schedule, by the default one."""
        if schedule is None:
            return self.generate(config, specs, isa)
        return self.generate(config, specs, isa, schedule)

    def stored(
        self, config: Any, specs: Sequence[TensorSpec], constants: Constants, isa: Isa
    ) -> tuple[TensorSpec, ...]:
        """The specs that a kernel is generated for: weights in the type that they are stored in."""
        stored = list(specs)
        if self.narrow is not None:
            dtype = self.narrow(config, specs, constants, isa)
            stored[WEIGHTS] = TensorSpec(specs[WEIGHTS].shape, dtype)
        return tuple(stored)

    def schedules(self, config: Any, specs: Sequence[TensorSpec], isa: Isa) -> list[Any]:
        """All schedules, the default first; empty where there is nothing to choose."""
        return [] if self.space is None else list(self.space(config, specs, isa))


KERNELS: dict[str, Family] = {}


def kernel(
    name: str, space: Schedules | None = None, narrow: Narrow | None = None
) -> Callable[[Generator], Generator]:
    """Register ``generate(config, input specs, isa[, schedule])`` as kernels of operator ``name``.

    Args:
        name: the operator.
        space: see ``Family``.
        narrow: see ``Family``.
    """

    def register(generate: Generator) -> Generator:
        KERNELS[name] = Family(generate, space, narrow)
        return generate

    return register
