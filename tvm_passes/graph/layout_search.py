"""Choose a layout for every operator so that few bytes have to be moved between them.

A layout that one operator has is offered to all others that it can be carried to through views and
operators. Which of them should take it, so that least is moved, is a minimum cut; the search tries
such steps as long as they help.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap
from math import inf

from tvm_passes.graph.layout_rules import Space
from tvm_passes.graph.min_cut import Vertex, minimum_cut
from tvm_passes.graph.view_algebra import (
    Layout,
    Shape,
    Step,
    along,
    chained,
    keeps_rows,
    row_major,
    transposition,
)

CALL = 1024  # bytes that could be moved in the time of calling one more operator
TURN = 3  # how much longer elements take than rows

NEVER = 2**60  # cost of what cannot be, in a network
OLD, NEW = "old", "new"  # ends of a network

Ends = tuple[Layout, list[Layout | None]]
Network = defaultdict[tuple[Vertex, Vertex], float]


@dataclass(frozen=True)
class Read:
    """An operand.

    Attributes:
        producer: index of the operator that computes the tensor behind it.
        steps: the views between.
        back: the views that lead back.
        shape: of the operand.
    """

    producer: int
    steps: tuple[Step, ...]
    back: tuple[Step, ...]
    shape: Shape


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        space: its index space.
        reads: its operands; None stands for a constant, which can have any layout.
        shape: of its result.
        nbytes: size of its result.
    """

    space: Space
    reads: tuple[Read | None, ...]
    shape: Shape
    nbytes: int


class LayoutSearch:
    """Layouts of all operators, row-major at first.

    Attributes:
        layouts: the layout of every operator's index space.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Nodes come after their producers."""
        self.nodes = nodes
        self.layouts: list[Layout] = [row_major(node.space.shape) for node in nodes]
        self.readers: list[list[tuple[int, int]]] = [[] for _ in nodes]
        for index, node in enumerate(nodes):
            for position, read in enumerate(node.reads):
                if read is not None:
                    self.readers[read.producer].append((index, position))

    def run(self) -> None:
        """Take steps until none helps."""
        while any(self._step(index, layout) for index, layout in list(self._seeds())):
            pass

    def given(self, index: int) -> Layout:
        """How an operator leaves its result in memory."""
        node = self.nodes[index]
        if node.space.result is None:
            return row_major(node.shape)
        given = along(self.layouts[index], node.space.shape, node.space.result)
        assert given is not None  # the operator accepts its layout
        return given

    def wanted(self, index: int, position: int) -> Layout | None:
        """How an operator wants an operand in memory, by the index of the tensor behind it.

        None for a constant, and where no digits express it.
        """
        node = self.nodes[index]
        read, shape = node.reads[position], node.space.operands[position]
        if read is None:
            return None
        layout: Layout | None = row_major(read.shape)
        if shape is not None:
            layout = along(self.layouts[index], node.space.shape, shape)
        return None if layout is None else chained(layout, read.shape, read.back)

    def cost(self, index: int) -> float:
        """What it costs to bring an operator's result into all layouts that are wanted of it."""
        wanted = {self.wanted(*reader) for reader in self.readers[index]}
        return sum(self._move(index, self.given(index), layout) for layout in wanted)

    def total(self) -> float:
        """What all movements cost together."""
        return sum(map(self.cost, range(len(self.nodes))))

    def spread(self, index: int, layout: Layout) -> None:
        """Carry a layout as far as it goes, whatever that costs."""
        done: set[int] = set()
        offers = [(index, layout)]
        while offers:
            index, layout = offers.pop()
            if index not in done and layout != self.layouts[index]:
                done.add(index)
                self.layouts[index] = layout
                offers += filter(None, starmap(self._forwards, self.readers[index]))
                reads = range(len(self.nodes[index].reads))
                offers += filter(None, (self._backwards(index, position) for position in reads))

    def _move(self, index: int, given: Layout, wanted: Layout | None) -> float:
        if given == wanted:
            return 0
        if wanted is None or transposition(given, wanted) is None:
            return inf
        return self.nodes[index].nbytes * (1 if keeps_rows(given, wanted) else TURN) + CALL

    def _seeds(self) -> Iterator[tuple[int, Layout]]:
        """Single changes that spare a movement somewhere."""
        for index in range(len(self.nodes)):
            for reader in self.readers[index]:
                if self.wanted(*reader) != self.given(index):
                    yield from filter(None, (self._forwards(*reader), self._backwards(*reader)))

    def _forwards(self, index: int, position: int) -> tuple[int, Layout] | None:
        """An operator in the layout in which its operand lies."""
        node = self.nodes[index]
        read, shape = node.reads[position], node.space.operands[position]
        if read is None or shape is None:
            return None
        source = self.nodes[read.producer].shape
        return self._offer(index, chained(self.given(read.producer), source, read.steps), shape)

    def _backwards(self, index: int, position: int) -> tuple[int, Layout] | None:
        """The producer of an operand in the layout that is wanted."""
        read = self.nodes[index].reads[position]
        shape = None if read is None else self.nodes[read.producer].space.result
        if read is None or shape is None:
            return None
        return self._offer(read.producer, self.wanted(index, position), shape)

    def _offer(self, index: int, layout: Layout | None, shape: Shape) -> tuple[int, Layout] | None:
        space = self.nodes[index].space
        own = None if layout is None else along(layout, shape, space.shape)
        fitting = None if own is None else space.fitting(own)
        return None if fitting is None else (index, fitting)

    def _step(self, index: int, layout: Layout) -> bool:
        """Let the operators take a layout for which that is best; whether that is better."""
        before, old = self.total(), list(self.layouts)
        self.spread(index, layout)
        new = list(self.layouts)
        after = self._ends()
        self.layouts[:] = old
        taken = minimum_cut(self._network(self._ends(), after), NEW, OLD)
        self.layouts[:] = [new[i] if i in taken else old[i] for i in range(len(old))]
        if self.total() < before:
            return True
        self.layouts[:] = old
        return False

    def _ends(self) -> list[Ends]:
        """What every operator gives, and what its readers want."""
        return [
            (self.given(index), list(starmap(self.wanted, readers)))
            for index, readers in enumerate(self.readers)
        ]

    def _network(self, before: Sequence[Ends], after: Sequence[Ends]) -> Network:
        """A network whose cuts cost what is moved between operators with new and old layouts.

        An edge is cut that leads from the side of ``NEW`` to that of ``OLD``.
        """
        network: Network = defaultdict(float)
        for index, readers in enumerate(self.readers):
            (old, wanted_before), (new, wanted_after) = before[index], after[index]
            starts, stops = defaultdict(list), defaultdict(list)
            always: set[Layout | None] = set()
            for (reader, _), first, then in zip(readers, wanted_before, wanted_after, strict=True):
                if first == then:
                    always.add(first)
                else:
                    stops[first].append(reader)
                    starts[then].append(reader)
            if old == new and not starts:
                continue
            for layout in {*always, *starts, *stops}:
                if_old, if_new = (
                    min(self._move(index, given, layout), NEVER) for given in (old, new)
                )
                if layout in always:
                    network[NEW, index] += if_old
                    network[index, OLD] += if_new
                    continue
                # readers share the movement: one vertex says whether it is wanted
                if layout in starts:
                    wanted = index, layout, NEW
                    network[wanted, OLD] += min(if_old, if_new)
                    network[wanted, index] += max(if_old - if_new, 0)
                    for reader in starts[layout]:
                        network[reader, wanted] = inf
                if layout in stops:
                    wanted = index, layout, OLD
                    network[NEW, wanted] += min(if_old, if_new)
                    network[index, wanted] += max(if_new - if_old, 0)
                    for reader in stops[layout]:
                        network[wanted, reader] = inf
        return network
