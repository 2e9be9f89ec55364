"""Minimum cuts of small networks."""

from collections import defaultdict, deque
from collections.abc import Hashable, Mapping

Vertex = Hashable


def minimum_cut(
    capacities: Mapping[tuple[Vertex, Vertex], float], source: Vertex, sink: Vertex
) -> set[Vertex]:
    """The source's side of the cheapest set of edges that parts it from the sink.

    Augments along shortest paths (Edmonds and Karp, 1972).

    Args:
        capacities: of directed edges; may be infinite, but on no whole path.
        source: vertex that flow comes from.
        sink: vertex that it goes to.
    """
    residual: defaultdict[Vertex, defaultdict[Vertex, float]] = defaultdict(
        lambda: defaultdict(float)
    )
    for (start, end), capacity in capacities.items():
        residual[start][end] += capacity
    while True:
        previous = _search(residual, source)
        if sink not in previous:
            return set(previous)
        path, vertex = [], sink
        while vertex != source:
            path.append((previous[vertex], vertex))
            vertex = previous[vertex]
        flow = min(residual[start][end] for start, end in path)
        for start, end in path:
            residual[start][end] -= flow
            residual[end][start] += flow


def _search(
    residual: Mapping[Vertex, Mapping[Vertex, float]], source: Vertex
) -> dict[Vertex, Vertex]:
    """Every vertex that flow can still reach, with the one before it."""
    previous, queue = {source: source}, deque([source])
    while queue:
        vertex = queue.popleft()
        for neighbour, room in residual[vertex].items():
            if room > 0 and neighbour not in previous:
                previous[neighbour] = vertex
                queue.append(neighbour)
    return previous
