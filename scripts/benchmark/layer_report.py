"""The tables of our library's layers."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class LayerRow:
    """One layer of the library.

    Attributes:
        name: as the library calls it.
        microseconds: median of one inference.
        macs: None where the layer could not be matched with an operator.
        shape: of its output, likewise.
    """

    name: str
    microseconds: float
    macs: int | None
    shape: tuple[int, ...] | None


def kind_of(name: str) -> str:
    """A layer's name without its number."""
    return name.rstrip("0123456789").rstrip("_")


def kind_table(network: str, rows: Sequence[LayerRow]) -> Table:
    """What each kind of layer sums to."""
    total = sum(row.microseconds for row in rows)
    macs = sum(row.macs or 0 for row in rows)
    title = f"{network}: {len(rows)} layers, {total / 1e3:.2f} ms, {macs / 1e6:.0f} MMAC matched"
    table = _table(title, "kind", "layers")
    kinds: dict[str, list[LayerRow]] = {}
    for row in rows:
        kinds.setdefault(kind_of(row.name), []).append(row)
    for kind, members in sorted(kinds.items(), key=lambda item: -_time(item[1])):
        own = sum(row.macs or 0 for row in members)
        table.add_row(kind, str(len(members)), *_cells(_time(members), total, own))
    return table


def layer_table(rows: Sequence[LayerRow], top: int) -> Table:
    """The slowest layers."""
    total = sum(row.microseconds for row in rows)
    table = _table("", "layer", "output")
    for row in rows[:top]:
        shape = "x".join(map(str, row.shape)) if row.shape else "?"
        table.add_row(row.name, shape, *_cells(row.microseconds, total, row.macs))
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading)
    for heading in ("us", "of time", "MMAC", "GMAC/s"):
        table.add_column(heading, justify="right")
    return table


def _cells(microseconds: float, total: float, macs: int | None) -> tuple[str, ...]:
    share = f"{microseconds / total:.1%}"
    if not macs:
        return f"{microseconds:.1f}", share, "?" if macs is None else "", ""
    return f"{microseconds:.1f}", share, f"{macs / 1e6:.2f}", f"{macs / microseconds / 1e3:.1f}"


def _time(rows: Sequence[LayerRow]) -> float:
    return sum(row.microseconds for row in rows)
