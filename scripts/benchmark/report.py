"""Tables for people, JSON for machines."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from scripts.benchmark.statistics import Comparison, Row, Summary

FORMAT = 1  # raise it when the JSON changes


def comparison_table(found: Comparison) -> Table:
    """One network's contestants, fastest first."""
    peak = f", int8 peak {found.peak_gmacs:.0f} GMAC/s" if found.peak_gmacs else ""
    table = Table(title=f"{found.network}: {found.macs / 1e6:.0f} MMAC{peak}", title_justify="left")
    table.add_column("contestant", no_wrap=True)
    for heading in ("median ms", "p10", "p90", "ours / it", "GMAC/s", "of int8 peak"):
        table.add_column(heading, justify="right")
    for row in found.rows:
        if row.time is not None:
            table.add_row(row.name, *_cells(row, row.time))
    table.caption = "\n".join(_notes(found))
    table.caption_justify = "left"
    return table


def _notes(found: Comparison) -> Iterator[str]:
    for kind, ratio in (("int8 ", found.to_fastest_integer), ("", found.to_fastest)):
        if ratio is not None:
            yield f"ours / fastest {kind}peer: {ratio:.2f}"
    for row in found.rows:
        if row.time is None:
            yield f"{row.name}: {row.problem}"


def _cells(row: Row, time: Summary) -> Sequence[str]:
    return [
        f"{time.median_ms:.2f}",
        f"{time.p10_ms:.2f}",
        f"{time.p90_ms:.2f}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.gmacs is None else f"{row.gmacs:.1f}",
        "" if row.peak_share is None else f"{row.peak_share:.1%}",
    ]


def write_json(path: Path, kind: str, machine: dict[str, Any], results: Sequence[Any]) -> None:
    """Write figures, dataclasses, with what they were measured on."""
    content = {
        "format": FORMAT,
        "kind": kind,
        "machine": machine,
        "results": [asdict(result) for result in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
