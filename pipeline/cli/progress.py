"""Progress on standard error: bars for what runs, one line for what is finished."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

TITLE_WIDTH = 30


@dataclass
class _Bar:
    """One running step; see `pipeline.progress.Step`."""

    progress: Progress
    task: TaskID
    inner_seconds: float = 0.0
    reused: bool = False

    def advance(self, done: int) -> None:
        self.progress.update(self.task, completed=done)

    def reuse(self) -> None:
        self.reused = True


class Bars(AbstractContextManager["Bars"]):
    """A `pipeline.progress.Reporter`; bars are drawn on a terminal only."""

    def __init__(self) -> None:
        """Nothing is drawn before the context is entered."""
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._running: list[_Bar] = []

    def __enter__(self) -> "Bars":
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bars; what is finished stays."""
        self._progress.stop()

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[_Bar]:
        """A bar, and at its end a line with the seconds that inner steps did not take."""
        bar = _Bar(self._progress, self._progress.add_task(title, total=total))
        self._running.append(bar)
        start = time.monotonic()
        try:
            yield bar
        finally:
            seconds = time.monotonic() - start
            self._running.pop()
            self._progress.remove_task(bar.task)
        if self._running:
            self._running[-1].inner_seconds += seconds
        took = "cached" if bar.reused else f"{seconds - bar.inner_seconds:.1f} s"
        self._console.print(f"{title:<{TITLE_WIDTH}} {took:>8}")

    def note(self, text: str) -> None:
        """A line."""
        self._console.print(text)
