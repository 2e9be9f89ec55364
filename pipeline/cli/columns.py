"""Rows of text in columns as wide as they need to be."""

from collections.abc import Sequence


def in_columns(rows: Sequence[Sequence[str]]) -> str:
    """One line for each row; columns of empty texts alone are left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*columns, strict=True)
    )


def with_heading(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same below a heading, which does not count as content of a column."""
    filled = [index for index in range(len(heading)) if any(row[index] for row in rows)]
    return in_columns([[line[index] for index in filled] for line in [heading, *rows]])
