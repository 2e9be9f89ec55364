"""Time several workers in turns, so that whatever disturbs the machine disturbs all alike."""

from collections.abc import Callable, Mapping
from statistics import median

from scripts.benchmark.contestants import Contestant

MINIMUM_RUNS, MAXIMUM_RUNS = 2, 400


def run_rounds(
    contestants: Mapping[str, Contestant],
    rounds: int,
    slice_seconds: float,
    clock: str = "time",
    progress: Callable[[str], None] = lambda name: None,
) -> dict[str, list[int]]:
    """Nanoseconds of every inference of every contestant.

    Args:
        contestants: running and idle, by name.
        rounds: times that each has its turn.
        slice_seconds: about how long a turn takes.
        clock: see `Contestant.time`.
        progress: called with the name before every turn.

    Raises:
        UserError: a worker ended.
    """
    runs = {
        name: turn_length(each.time(3, clock), slice_seconds) for name, each in contestants.items()
    }
    times: dict[str, list[int]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            progress(name)
            contestant.time(1, clock)  # fills the caches that the one before emptied
            times[name] += contestant.time(runs[name], clock)
    return times


def turn_length(probe: list[int], slice_seconds: float) -> int:
    """How many inferences fill a turn, judging by a few."""
    wanted = int(slice_seconds * 1e9 / median(probe))
    return min(max(wanted, MINIMUM_RUNS), MAXIMUM_RUNS)
