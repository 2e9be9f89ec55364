"""Tables and JSON."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scripts.benchmark.costs import Cost, DeviceRow
from scripts.benchmark.device_report import device_table
from scripts.benchmark.report import comparison_table, write_json
from scripts.benchmark.statistics import Summary, compare

FOUND = compare(
    "net",
    400_000_000,
    {"pocketvit int8 w8a8": Summary(2, 1.9, 2.2, 30), "openvino int8": Summary(5, 4.5, 6, 12)},
    {"litert int8": "cannot be converted: an operator is missing"},
    500.0,
)


def _text(table: Table) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_comparison_shows_figures_ratios_and_problems() -> None:
    text = _text(comparison_table(FOUND))
    ours, peer = (line.split("│") for line in text.splitlines() if "int8" in line and "│" in line)
    assert [cell.strip() for cell in ours[1:-1]] == [
        "pocketvit int8 w8a8", "2.00", "1.90", "2.20", "1.00", "200.0", "40.0%",
    ]  # fmt: skip
    assert peer[5].strip() == "0.40"
    assert "400 MMAC" in text and "500 GMAC/s" in text
    assert "ours / fastest int8 peer: 0.40" in text
    assert "litert int8: cannot be converted: an operator is missing" in text


def test_json_holds_every_field(tmp_path: Path) -> None:
    path = tmp_path / "new" / "figures.json"
    write_json(path, "host", {"cpu": "some"}, [FOUND])
    content = json.loads(path.read_text())
    assert (content["format"], content["kind"], content["machine"]) == (1, "host", {"cpu": "some"})
    assert content["results"] == json.loads(json.dumps([asdict(FOUND)]))


def test_device_table_is_in_order_of_cycles() -> None:
    def cost(cycles: float) -> Cost:
        cores = {core: cycles for core in ("cortex-a55", "cortex-a76", "cortex-x1")}
        return Cost(4e6, {"dot product": 3e6, "branch": 1e6}, {"library.so": 4e6}, cores)

    rows = [
        DeviceRow("net", "cortex-a76", "slow int8", cost(9e6)),
        DeviceRow("net", "cortex-a76", "fast int8", cost(2e6)),
        DeviceRow("net", "cortex-a76", "broken int8", None, "does not run: no reason"),
    ]
    text = _text(device_table("net", 20_900_000, rows))
    assert text.index("fast int8") < text.index("slow int8")
    assert "dot product 75%, branch 25%" in text
    assert "20.9 MMAC" in text
    assert "broken int8 on cortex-a76: does not run: no reason" in text
