"""Linear streams: maps that convolutions write, perhaps add up, and only convolutions read.

The weights around one can take factors per channel without anything left to do at run time: rows of
those that write it hold the inverse of what columns of those that read it hold. Source: cross-layer
equalization of Nagel et al. (ICCV 2019), section 4.1, here for sums and concatenations too.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx

from pipeline.quant import walk
from pipeline.quant.channels import Channels, Reader, conv_reader


@dataclass(frozen=True)
class Stream:
    """Maps `[1, C, H, W]` whose channels can only be scaled together.

    Attributes:
        members: the maps, sums included.
        writers: convolutions among them.
        readers: convolutions that read them. Channel -1 stands for one of another tensor, where a
            concatenation lies between.
    """

    members: frozenset[fx.Node]
    writers: tuple[fx.Node, ...]
    readers: tuple[Reader, ...]

    def channels(self, node: fx.Node) -> Channels:
        """All readers of the stream as those of one member."""
        return Channels(node, 1, int(node.meta["val"].shape[1]), self.readers)


def stream_of(node: fx.Node) -> Stream | None:
    """The stream of a map; None where anything else writes or reads it."""
    members: set[fx.Node] = set()
    writers: list[fx.Node] = []
    readers: list[Reader] = []
    waiting = [node]
    while waiting:
        member = waiting.pop()
        if member in members:
            continue
        members.add(member)
        if member.target is walk.CONV:
            writers.append(member)
        elif _is_plain_sum(member):
            waiting += walk.operands(member)
        else:
            return None
        for user in member.users:
            if _is_plain_sum(user):
                waiting.append(user)
            elif (found := list(_readers(member, user))) and None not in found:
                readers += [reader for reader in found if reader is not None]
            else:
                return None
    return Stream(frozenset(members), tuple(writers), tuple(readers))


def _is_plain_sum(node: fx.Node) -> bool:
    if not walk.is_sum(node):
        return False
    shapes = {tuple(n.meta["val"].shape) for n in (node, *walk.operands(node))}
    return len(shapes) == 1


def _readers(member: fx.Node, user: fx.Node) -> Iterator[Reader | None]:
    """How an operator reads a map; None for each way that takes no factor."""
    own = torch.arange(int(member.meta["val"].shape[1]))
    if user.target is walk.CONV:
        yield conv_reader(user, own) if user.args[0] is member else None
    elif user.target is walk.CAT and user.args[1:] in ((1,), (-3,)):
        parts = user.args[0]
        assert isinstance(parts, (list, tuple))
        where = [own if part is member else _others(part) for part in parts]
        for reader in user.users:
            is_conv = reader.target is walk.CONV and reader.args[0] is user
            yield conv_reader(reader, torch.cat(where)) if is_conv else None
    else:
        yield None


def _others(part: object) -> torch.Tensor:
    assert isinstance(part, fx.Node)
    return torch.full((int(part.meta["val"].shape[1]),), -1)
