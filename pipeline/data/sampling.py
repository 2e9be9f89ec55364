"""An even, reproducible order of files."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from itertools import zip_longest
from typing import TypeVar

T = TypeVar("T")


def even_order(
    items: Iterable[T], name_of: Callable[[T], str], group_of: Callable[[T], Hashable], seed: int
) -> list[T]:
    """Order items so that every prefix takes evenly from all groups.

    Groups take turns; which group begins, and the order inside a group, is that of the SHA-256 of
    seed and name. So the order is the same on every machine, does not depend on the order of
    `items`, and a new item does not reshuffle the others.

    Args:
        items: what to order.
        name_of: unique name of an item, such as its relative path.
        group_of: the group of an item, such as its folder.
        seed: another seed gives another order.
    """

    def rank(item: T) -> bytes:
        name = f"{seed}:{name_of(item)}"
        return hashlib.sha256(name.encode(errors="surrogateescape")).digest()

    groups: defaultdict[Hashable, list[T]] = defaultdict(list)
    for item in sorted(items, key=rank):
        groups[group_of(item)].append(item)
    columns = ([[item] for item in group] for group in groups.values())
    return [item for turn in zip_longest(*columns, fillvalue=()) for cell in turn for item in cell]
