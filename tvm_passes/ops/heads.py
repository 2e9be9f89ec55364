"""Values of a configuration that may differ between the heads of an attention."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

PerHead = int | tuple[int, ...]  # one value for all heads, or one for each


def per_head(values: Iterable[int]) -> PerHead:
    """One value for each head, or just one where they are equal."""
    each = tuple(int(value) for value in values)
    return each[0] if len(set(each)) == 1 else each


def along_heads(value: PerHead) -> NDArray[np.int64]:
    """``value`` as it broadcasts against [.., H, M, N]: [H, 1, 1], or [] of one for all heads."""
    each = np.asarray(value, np.int64)
    return each.reshape(-1, 1, 1) if each.ndim else each
