"""What a long verb tells its user while it works, whoever the user is."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Step(Protocol):
    """A piece of work that is under way."""

    def advance(self, done: int) -> None:
        """Say that `done` of the step's units are finished."""

    def reuse(self) -> None:
        """Say that the result of an earlier run serves."""


class Reporter(Protocol):
    """Receives what there is to tell."""

    def step(self, title: str, total: int | None = None) -> AbstractContextManager[Step]:
        """A step that lasts as long as the context; steps may be nested.

        Args:
            title: what is done, as in "quantize".
            total: number of units, where they can be counted.
        """

    def note(self, text: str) -> None:
        """Something worth a line."""


class Silent:
    """Tells nothing; it is reporter and step at once."""

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator["Silent"]:
        """See `Reporter`."""
        yield self

    def note(self, text: str) -> None:
        """See `Reporter`."""

    def advance(self, done: int) -> None:
        """See `Step`."""

    def reuse(self) -> None:
        """See `Step`."""
