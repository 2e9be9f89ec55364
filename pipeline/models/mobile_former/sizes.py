"""The seven sizes (tables 1 and 12 of the paper)."""

from dataclasses import dataclass

from pipeline.models.mobile_former.blocks import Block, DownBlock, LiteBlock

Kind = type[LiteBlock | Block | DownBlock]


@dataclass(frozen=True)
class Stage:
    """One block: its kind, stride, expansion factor and output channels."""

    kind: Kind
    stride: int
    factor: int
    channels: int


@dataclass(frozen=True)
class Size:
    """One network.

    Attributes:
        stem: channels of the first convolution.
        tokens: T.
        width: of the tokens, d.
        head: width of the last hidden layer.
        stages: blocks in order.
        groups: of the pointwise convolutions.
    """

    stem: int
    tokens: int
    width: int
    head: int
    stages: tuple[Stage, ...]
    groups: int = 1


def _lite(factor: int, channels: int, stride: int = 1) -> Stage:
    return Stage(LiteBlock, stride, factor, channels)


def _down(channels: int) -> Stage:
    return Stage(DownBlock, 2, 6, channels)


def _block(factor: int, channels: int) -> Stage:
    return Stage(Block, 1, factor, channels)


def _deep(factors: tuple[int, int], *channels: int) -> tuple[Stage, ...]:
    """The sizes from 151M up: factors of the first two blocks, channels of every resolution."""
    c1, c2, c3, c4, c5, c6 = channels
    return (
        *(_lite(2, c1), _down(c2), _block(factors[0], c2), _down(c3), _block(factors[1], c3)),
        *(_down(c4), _block(4, c4), _block(6, c5), _block(6, c5)),
        *(_down(c6), _block(6, c6), _block(6, c6)),
    )


_SMALL = (
    *(_lite(3, 12, stride=2), _block(3, 12), _down(24), _block(3, 24)),
    *(_down(48), _block(4, 48), _block(6, 64), _down(96), _block(6, 96)),
)
_96M = (
    *(_lite(2, 12), _down(16), _down(32), _block(3, 32)),
    *(_down(64), _block(4, 64), _block(6, 88), _down(128), _block(6, 128)),
)

SIZES = {
    "26m": Size(8, 3, 128, 1024, _SMALL, groups=4),
    "52m": Size(8, 3, 128, 1024, _SMALL),
    "96m": Size(12, 4, 128, 1280, _96M),
    "151m": Size(12, 6, 192, 1280, _deep((3, 3), 12, 16, 32, 64, 88, 128)),
    "214m": Size(12, 6, 192, 1600, _deep((3, 4), 12, 20, 40, 80, 112, 160)),
    "294m": Size(16, 6, 192, 1920, _deep((4, 4), 16, 24, 48, 96, 128, 192)),
    "508m": Size(24, 6, 192, 1920, _deep((3, 3), 24, 40, 72, 128, 176, 240)),
}
"""By the number of multiply-adds, in millions, of the paper's names."""
