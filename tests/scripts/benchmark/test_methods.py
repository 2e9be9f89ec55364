"""Tables of docs/methods.md."""

from pathlib import Path

import pytest

from pipeline.compare.cell import CellResult, Figures
from pipeline.errors import UserError
from scripts.benchmark.methods import filled, main, pool


def cell(method: str, photos: str, right: int, noise: float) -> CellResult:
    """Four photos, so many of which are right."""
    figures = Figures(
        photos=4,
        photos_sha256=photos,
        calibration_photos=2,
        quantize_seconds=3.0,
        float_top1=1.0,
        top1=right / 4,
        top1_difference=right / 4 - 1,
        top1_low=None,
        top1_high=None,
        agreement=right / 4,
        sqnr_db=10.0,
        labels=(1,) * 4,
        predictions=(1,) * right + (0,) * (4 - right),
        noise=(noise,) * 4,
    )
    return CellResult(
        model="any", method=method, bits="w4a4", level="simulated", seed=0, figures=figures
    )


HALVES = [("net", cell("good", "x", 4, 1.0)), ("net", cell("good", "y", 3, 1.0))]
OTHERS = [("net", cell("bad", "y", 1, 4.0)), ("net", cell("bad", "x", 0, 4.0))]


def test_halves_become_one_row_and_the_closest_to_float_comes_first() -> None:
    page = "a\n<!-- figures: net w4a4 -->\nold\n<!-- end -->\nz\n"
    lines = filled(page, pool(HALVES + OTHERS)).splitlines()
    assert lines[0] == "a" and lines[-1] == "z" and "old" not in lines
    good, bad = lines[4:6]
    assert good == "| W4A4 | `good` | 8 | 87.5% | -12.5 | 87.5% | 10.0 dB | 3 s |"
    assert bad.startswith("| W4A4 | `bad` | 8 | 12.5% | -87.5 ")
    other = [("other", cell("good", "x", 0, 1.0))]
    assert filled(page, pool([*other, *HALVES, *OTHERS])).splitlines()[4:6] == [good, bad]


def test_claims_are_tested_on_the_same_photos_of_all_halves() -> None:
    page = "<!-- figures: net w4a4: good > bad -->\n<!-- end -->\n"
    row = filled(page, pool(HALVES + OTHERS)).splitlines()[3].split("|")
    assert [part.strip() for part in row[1:4]] == ["W4A4", "`good`", "`bad`"]
    assert row[4].strip() == "8"
    assert row[5].strip().startswith("+75.0 [") and row[8].strip().startswith("+6.0 dB")
    half = filled(page, pool(HALVES + OTHERS[:1])).splitlines()[3].split("|")
    assert half[4].strip() == "4" and half[5].strip().startswith("+50.0 [")
    with pytest.raises(UserError, match="share no photos"):
        filled(page, pool([HALVES[0], OTHERS[0]]))


def test_a_page_is_written_from_the_folders_of_comparisons(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "one.json").write_text(HALVES[0][1].model_dump_json())
    page = tmp_path / "page.md"
    page.write_text("<!-- figures: net w4a4 -->\n<!-- end -->\n")
    main([f"net={tmp_path}"], page)
    assert "`good` | 4 | 100.0%" in page.read_text()


def test_tables_of_other_experiments_stay() -> None:
    page = "<!-- figures: later w4a4 -->\nold\n<!-- end -->\n"
    page += "<!-- figures: net w4a4: good > missing -->\nold\n<!-- end -->\n"
    assert filled(page, pool(HALVES)) == page


def test_two_results_on_the_same_photos_are_refused() -> None:
    with pytest.raises(UserError, match="two results of good w4a4 on the same photos"):
        pool(HALVES + HALVES[:1])
