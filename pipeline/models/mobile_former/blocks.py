"""The blocks of Mobile-Former: a map and the tokens go in, and come out."""

from torch import Tensor, nn

from pipeline.models.mobile_former.attention import (
    DynamicReLU,
    GlobalBlock,
    GlobalToLocal,
    Hyper,
    LocalToGlobal,
)

State = tuple[Tensor, Tensor]
"""A map `[B, C, H, W]` and the tokens `[B, T, d]`."""


class ChannelShuffle(nn.Module):
    """Channels of all groups in turn."""

    def __init__(self, groups: int) -> None:
        """Take the number of groups."""
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` -> the same shape."""
        grouped = x.reshape(len(x), self.groups, -1, *x.shape[2:])
        return grouped.transpose(1, 2).reshape(x.shape)


def shuffle(groups: int, wanted: bool) -> nn.Module:
    """A channel shuffle, or a place for none that keeps the numbers of the other modules."""
    return ChannelShuffle(groups) if wanted else nn.Identity()


def depthwise(channels: int, factor: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution of each channel by itself, to `factor` channels."""
    return nn.Conv2d(channels, channels * factor, 3, stride, 1, groups=channels, bias=False)


def pointwise(inputs: int, outputs: int, groups: int) -> nn.Conv2d:
    """1x1 convolution."""
    return nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False)


class LiteBlock(nn.Module):
    """Depthwise and pointwise convolution; the tokens pass."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, factor: int, width: int, groups: int
    ) -> None:
        """Take the widths of the maps, the stride and the expansion factor."""
        del width
        super().__init__()
        self.conv = nn.Sequential(
            depthwise(inputs, factor, stride),
            nn.BatchNorm2d(inputs * factor),
            nn.ReLU6(),
            shuffle(inputs, groups > 1),
            pointwise(inputs * factor, outputs, groups),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, state: State) -> State:
        """A map and tokens."""
        x, tokens = state
        y = self.conv(x)
        return (x + y if self.residual else y), tokens


class _Bridged(nn.Module):
    """What blocks with a Former have in common: the order of section 3.1."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.local_global = LocalToGlobal(inputs, width)
        self.global_block = GlobalBlock(width)
        self.global_local = GlobalToLocal(outputs, width)
        self.act = DynamicReLU()

    def convolve(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The convolutions."""
        raise NotImplementedError

    def forward(self, state: State) -> State:
        """A map and tokens."""
        x, tokens = state
        tokens = self.global_block(self.local_global(x, tokens))
        return self.global_local(self.convolve(x, tokens), tokens), tokens


class Block(_Bridged):
    """Pointwise, depthwise, pointwise; stride 1."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, factor: int, width: int, groups: int
    ) -> None:
        """Take the widths of the maps, the expansion factor, the width of tokens, the groups."""
        assert stride == 1
        super().__init__(inputs, outputs, width)
        hidden, grouped = inputs * factor, groups > 1
        self.conv1 = nn.Sequential(
            pointwise(inputs, hidden, groups), nn.BatchNorm2d(hidden), shuffle(groups, grouped)
        )
        self.hyper1 = Hyper(width, hidden)
        self.conv2 = nn.Sequential(depthwise(hidden, 1), nn.BatchNorm2d(hidden))
        self.hyper2 = Hyper(width, hidden)
        self.conv3 = nn.Sequential(
            pointwise(hidden, outputs, groups), nn.BatchNorm2d(outputs), shuffle(groups, grouped)
        )
        self.residual = inputs == outputs

    def convolve(self, x: Tensor, tokens: Tensor) -> Tensor:
        """`[B, C, H, W]` -> `[B, C', H, W]`."""
        y = self.act(self.conv1(x), self.hyper1(tokens))
        y = self.conv3(self.act(self.conv2(y), self.hyper2(tokens)))
        return x + y if self.residual else y


class DownBlock(_Bridged):
    """Depthwise, pointwise, depthwise, pointwise; the first one halves the map."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        factor: int,
        width: int,
        groups: int,
        second: int = 4,
    ) -> None:
        """Like `Block`; `second` is the expansion factor of the second half."""
        super().__init__(inputs, outputs, width)
        hidden, wide, grouped = inputs * factor, outputs * second, groups > 1
        self.conv1 = nn.Sequential(
            depthwise(inputs, factor, stride), nn.BatchNorm2d(hidden), shuffle(inputs, grouped)
        )
        self.hyper1 = Hyper(width, hidden)
        self.conv2 = nn.Sequential(pointwise(hidden, outputs, groups), nn.BatchNorm2d(outputs))
        self.conv3 = nn.Sequential(
            depthwise(outputs, second), nn.BatchNorm2d(wide), shuffle(outputs, grouped)
        )
        self.hyper3 = Hyper(width, wide)
        self.conv4 = nn.Sequential(pointwise(wide, outputs, groups), nn.BatchNorm2d(outputs))

    def convolve(self, x: Tensor, tokens: Tensor) -> Tensor:
        """`[B, C, H, W]` -> `[B, C', H/2, W/2]`."""
        y = self.conv2(self.act(self.conv1(x), self.hyper1(tokens)))
        return y + self.conv4(self.act(self.conv3(y), self.hyper3(tokens)))
