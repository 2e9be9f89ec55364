"""Tables as Markdown, CSV and HTML."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from pipeline.compare.tables import Table
from pipeline.files.atomic import write_atomically

NAME = "comparison"


def write_report(results: Table, paired: Table, folder: Path) -> tuple[Path, ...]:
    """Write `comparison.md`, `.html` and `.csv`, and `paired.csv`; older ones are replaced.

    Args:
        results: one row for each cell.
        paired: methods against each other; left out where it has no rows.
        folder: where to.

    Returns:
        The files.
    """
    tables = [table for table in (results, paired) if table.rows]
    content = {
        f"{NAME}.md": "\n".join(map(to_markdown, tables)),
        f"{NAME}.html": to_html(tables),
        f"{NAME}.csv": to_csv(results),
    }
    if paired.rows:
        content["paired.csv"] = to_csv(paired)
    for name, text in content.items():
        write_atomically(folder / name, text)
    return tuple(folder / name for name in content)


def to_markdown(table: Table) -> str:
    """A heading and a table; columns without any content are left out."""
    filled = [
        index
        for index in range(len(table.columns))
        if any(row[index] for row in table.rows) or not table.rows
    ]
    lines = [[table.columns[index] for index in filled], ["---"] * len(filled)]
    lines += [[row[index].replace("|", r"\|") for index in filled] for row in table.rows]
    return f"## {table.title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_csv(table: Table) -> str:
    """Numbers in full, with a heading; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table.data[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.data)
    return text.getvalue()


def to_html(tables: Sequence[Table]) -> str:
    """A page that stands alone."""
    loader = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return template.get_template("report.html.j2").render(tables=tables)
