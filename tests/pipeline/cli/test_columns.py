"""Text in columns."""

from pipeline.cli.columns import in_columns, with_heading


def test_columns_are_as_wide_as_they_need_to_be():
    assert in_columns([("a", "bcd"), ("efgh", "i")]) == "a     bcd\nefgh  i"


def test_columns_without_content_are_left_out_with_their_headings():
    rows = [("a", "", "1"), ("b", "", "2")]
    assert with_heading(("name", "error", "n"), rows) == "name  n\na     1\nb     2"
