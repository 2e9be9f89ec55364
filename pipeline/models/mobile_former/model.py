"""The network from its size."""

from math import sqrt

import torch
from torch import Tensor, nn

from pipeline.models.mobile_former.attention import LocalToGlobal
from pipeline.models.mobile_former.blocks import pointwise, shuffle
from pipeline.models.mobile_former.sizes import Size

HEAD_FACTOR = 6


class Classifier(nn.Module):
    """The pooled map and the first token, a hidden layer, the logits."""

    def __init__(self, inputs: int, size: Size, num_classes: int, drop_rate: float) -> None:
        """Take the width of the map, the network's size, the number of logits, the dropout."""
        super().__init__()
        hidden = HEAD_FACTOR * inputs
        self.conv = nn.Sequential(
            shuffle(size.groups, size.groups > 1),
            pointwise(inputs, hidden, size.groups),
            nn.BatchNorm2d(hidden),
        )
        self.act = nn.ReLU6()
        self.avgpool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Hardswish(), nn.Flatten())
        self.fc = nn.Sequential(
            nn.Linear(hidden + size.width, size.head), nn.BatchNorm1d(size.head), nn.Hardswish()
        )
        self.classifier = nn.Sequential(nn.Dropout(drop_rate), nn.Linear(size.head, num_classes))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """`[B, C, H, W]` and `[B, T, d]` -> `[B, num_classes]`."""
        pooled = self.avgpool(self.act(self.conv(x)))
        logits: Tensor = self.classifier(self.fc(torch.cat([pooled, tokens[:, 0]], 1)))
        return logits


class MobileFormer(nn.Module):
    """MobileNet and a transformer of a few tokens, in parallel (section 3 of the paper)."""

    def __init__(
        self, size: Size, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.0
    ) -> None:
        """Take the size, the number of logits, the channels of the image and the dropout."""
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, size.stem, 3, 2, 1, bias=False),
            nn.BatchNorm2d(size.stem),
            nn.ReLU6(),
        )
        self.tokens = nn.Embedding(size.tokens, size.width)
        blocks, channels = [], size.stem
        for stage in size.stages:
            geometry = (stage.stride, stage.factor, size.width, size.groups)
            blocks.append(stage.kind(channels, stage.channels, *geometry))
            channels = stage.channels
        self.features = nn.Sequential(*blocks)
        self.local_global = LocalToGlobal(channels, size.width)
        self.classifier = Classifier(channels, size, num_classes, drop_rate)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """`[B, 3, S, S]` -> `[B, num_classes]`."""
        tokens = self.tokens.weight.expand(image.shape[0], -1, -1)
        x, tokens = self.features((self.stem(image), tokens))
        logits: Tensor = self.classifier(x, self.local_global(x, tokens))
        return logits


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, 0.0, sqrt(2.0 / fan_out))
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.01)
        nn.init.zeros_(module.bias)
