"""Constant padding of an NHWC map with the code that stands for zero."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.ops.base import Operator, TensorSpec, register


@dataclass(frozen=True)
class PadConfig:
    """Padding of ``pad``.

    Attributes:
        before: pixels added on top and on the left.
        after: pixels added at the bottom and on the right.
        value: the code that fills them, the input's zero point.
    """

    before: tuple[int, int]
    after: tuple[int, int]
    value: int


def _reference(config: PadConfig, x: NDArray[Any]) -> NDArray[Any]:
    widths = [(0, 0), *zip(config.before, config.after, strict=True), (0, 0)]
    return np.pad(x, widths, constant_values=config.value)


def _infer(config: PadConfig, specs: Sequence[TensorSpec]) -> TensorSpec:
    batch, height, width, channels = specs[0].shape
    shape = (
        batch,
        height + config.before[0] + config.after[0],
        width + config.before[1] + config.after[1],
        channels,
    )
    return TensorSpec(shape, specs[0].dtype)


register(Operator("pad", PadConfig, _infer, _reference))
