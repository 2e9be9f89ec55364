"""The table of emulated costs."""

from collections.abc import Sequence

from rich.table import Table

from pipeline.device.cycles import DEFAULT_CORES
from scripts.benchmark.costs import Cost, DeviceRow

SHOWN_CLASSES = 3
ORDER = "cortex-a76"


def device_table(network: str, macs: int, rows: Sequence[DeviceRow]) -> Table:
    """One network's contestants, fewest estimated cycles first for each CPU."""
    table = Table(title=f"{network}: {macs / 1e6:.1f} MMAC, emulated", title_justify="left")
    for heading in ("CPU", "contestant"):
        table.add_column(heading, no_wrap=True)
    table.add_column("M instructions", justify="right")
    for core in DEFAULT_CORES:
        table.add_column(f"M cycles {core}", justify="right")
    table.add_column("most executed")
    found = [(row, row.cost) for row in rows if row.cost is not None]
    for row, cost in sorted(found, key=lambda pair: (pair[0].cpu, pair[1].cycles[ORDER])):
        table.add_row(row.cpu, row.contestant, *_cells(cost))
    problems = (f"{row.contestant} on {row.cpu}: {row.problem}" for row in rows if not row.cost)
    table.caption = "\n".join(problems)
    table.caption_justify = "left"
    return table


def _cells(cost: Cost) -> Sequence[str]:
    largest = sorted(cost.by_class.items(), key=lambda item: -item[1])[:SHOWN_CLASSES]
    total = cost.instructions
    shares = ", ".join(f"{name} {count / total:.0%}" for name, count in largest)
    cycles = [f"{cost.cycles[core] / 1e6:.2f}" for core in DEFAULT_CORES]
    return [f"{total / 1e6:.2f}", *cycles, shares]
