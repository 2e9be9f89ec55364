"""Results as tables of three kinds."""

import csv
import io

import pytest

from pipeline.compare.cell import CellResult
from pipeline.compare.report import to_csv, to_html, to_markdown, write_report
from pipeline.compare.tables import paired_table, result_table


@pytest.fixture
def results(figures) -> list[CellResult]:
    """A good method, a better one, and one that failed."""
    shared = {"model": "vit", "bits": "w4a4", "level": "simulated", "seed": 0}
    better = figures.model_copy(
        update={"predictions": figures.labels, "noise": (0.1, 0.2, 0.3, 0.4), "sqnr_db": None}
    )
    return [
        CellResult(method="first", figures=figures, **shared),
        CellResult(method="broken", error="a | b <c>.", **shared),
        CellResult(method="better", figures=better, **shared),
    ]


def test_every_cell_has_a_row(results):
    table = result_table(results)
    first, broken, better = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert first["top-1"] == "50.00%" and first["difference, 95 %"] == "-25.00 [-75.00, +0.00]"
    assert first["SQNR"] == "20.0 dB" and better["SQNR"] == "equal"
    assert broken["error"] == "a | b <c>." and broken["top-1"] == ""


def test_methods_are_paired_with_the_first_one(results):
    table = paired_table(results, seed=0)
    (row,) = table.data
    assert (row["method"], row["against"]) == ("better", "first")
    assert row["top1_difference"] == 0.5 and row["mcnemar_p"] == 0.5
    assert row["sqnr_db_difference"] == pytest.approx(10)
    assert row["sqnr_db_low"] == pytest.approx(10)


def test_other_photos_are_not_paired(results):
    first, _, better = results
    moved = better.figures.model_copy(update={"photos_sha256": "cd"})
    table = paired_table([first, better.model_copy(update={"figures": moved})], seed=0)
    assert table.rows == ()


def test_csv_has_all_numbers(results):
    rows = list(csv.DictReader(io.StringIO(to_csv(result_table(results)))))
    assert [row["method"] for row in rows] == ["first", "broken", "better"]
    assert float(rows[0]["top1_low"]) == -0.75
    assert rows[1]["top1"] == "" and rows[1]["error"] == "a | b <c>."


def test_markdown_escapes_and_leaves_empty_columns_out(results):
    text = to_markdown(result_table(results))
    assert r"a \| b <c>." in text
    assert "error" not in to_markdown(result_table(results[:1]))


def test_html_escapes(results):
    text = to_html([result_table(results)])
    assert "a | b &lt;c&gt;." in text and "<c>" not in text
    assert text.count("<tr>") == 4


def test_a_report_is_four_files(results, tmp_path):
    table = result_table(results)
    files = write_report(table, paired_table(results, 0), tmp_path)
    names = ["comparison.csv", "comparison.html", "comparison.md", "paired.csv"]
    assert (
        sorted(path.name for path in files)
        == names
        == sorted(map(lambda p: p.name, tmp_path.iterdir()))
    )
    few = write_report(result_table(results[1:2]), paired_table(results[1:2], 0), tmp_path / "few")
    assert [path.name for path in few] == ["comparison.md", "comparison.html", "comparison.csv"]
