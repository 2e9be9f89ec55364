"""What an inference costs on an emulated CPU: instructions by class, estimated cycles."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.device.cycles import estimate_cycles
from pipeline.device.profile import BlockProfile, count_classes

ALL = "all"


@dataclass(frozen=True)
class Cost:
    """Work of one inference, the libraries that it calls included.

    Attributes:
        instructions: executed.
        by_class: the same, by class, see `pipeline.device.profile.INSTRUCTION_CLASSES`.
        by_library: the same, by shared object.
        cycles: estimated, by core, see `pipeline.device.cycles`.
    """

    instructions: float
    by_class: dict[str, float]
    by_library: dict[str, float]
    cycles: dict[str, float]


@dataclass(frozen=True)
class DeviceRow:
    """One contestant on one network and one emulated CPU.

    Attributes:
        network: its name.
        cpu: emulated.
        contestant: peer and variant.
        cost: None where it did not run.
        problem: why it did not.
    """

    network: str
    cpu: str
    contestant: str
    cost: Cost | None
    problem: str = ""


def cost_of(profile: BlockProfile, cores: Sequence[str]) -> Cost:
    """Sum up a profile over all shared objects.

    Raises:
        UserError: LLVM's tools are not installed.
    """
    blocks = tuple(replace(block, library=ALL) for block in profile.blocks)
    whole = BlockProfile(profile.inferences, blocks)
    return Cost(
        whole.instructions().get(ALL, 0.0),
        count_classes(whole, ALL),
        profile.instructions(),
        estimate_cycles(whole, ALL, cores),
    )
